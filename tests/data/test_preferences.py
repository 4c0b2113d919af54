"""Rows of preferences: texts or messages in each column, with or without the prompt repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llsflow.data.conversation import Conversation
from llsflow.data.preferences import PREFERENCES, Preference, preference

USER = {"role": "user", "content": "Hello"}
GOOD = {"role": "assistant", "content": "Hi"}
BAD = {"role": "assistant", "content": "What?"}


@pytest.mark.parametrize("prompt", ["Hello", [USER]])
@pytest.mark.parametrize("chosen", ["Hi", [GOOD], [USER, GOOD]])
@pytest.mark.parametrize("rejected", ["What?", [BAD], [USER, BAD]])
def test_every_way_to_write_a_preference_is_the_same(prompt: Any, chosen: Any, rejected: Any) -> None:
    found = preference({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    both = (Conversation([USER, answer]) for answer in (GOOD, BAD))  # type: ignore[list-item]
    assert found == Preference([USER], *both)  # type: ignore[list-item]


def test_every_turn_counts_once() -> None:
    assert PREFERENCES.read({"prompt": "Hello", "chosen": [USER, GOOD], "rejected": "What?"}).messages == [
        *(USER, GOOD, BAD)
    ]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"chosen": "What?"}, "chosen and rejected are the same: there is nothing to prefer"),
        ({"chosen": [USER]}, "chosen must end with the assistant's answer to the prompt"),
        ({"rejected": [BAD, USER]}, "rejected must end with the assistant's answer"),
        ({"rejected": [{"role": "assistant", "content": ""}]}, "rejected must end with the assistant's answer"),
        ({"rejected": 3}, "rejected is int '3': a text is needed"),
        ({"prompt": []}, "prompt is list"),
    ],
)
def test_preferences_that_are_none(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        preference({"prompt": "Hello", "chosen": "Hi", "rejected": "What?", **changed})


SYSTEM = {"role": "system", "content": "S"}
EARLIER = [{"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1"}]


@pytest.mark.parametrize(
    ("prompt", "before"),
    [("Hello", [SYSTEM, USER]), ("Hello ", [USER]), ("Hello", [*EARLIER, USER]), ([USER], [SYSTEM, USER])],
)
def test_a_prompt_beside_whole_conversations_is_their_last_question(prompt: Any, before: list[Any]) -> None:
    found = preference({"prompt": prompt, "chosen": [*before, GOOD], "rejected": [*before, BAD]})
    assert found.prompt == before
    assert (found.chosen.messages, found.rejected.messages) == ([*before, GOOD], [*before, BAD])


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("Another?", [SYSTEM, USER, GOOD], [SYSTEM, USER, BAD]),
        ("Hello", [SYSTEM, USER, GOOD], [BAD]),
        ("Hello", [SYSTEM, USER, GOOD], [*EARLIER, USER, BAD]),
    ],
)
def test_a_prompt_that_is_not_their_question_is_refused(prompt: str, chosen: Any, rejected: Any) -> None:
    with pytest.raises(ValueError, match="chosen begins with a turn that asks, so it is a whole conversation"):
        preference({"prompt": prompt, "chosen": chosen, "rejected": rejected})


def test_messages_may_be_their_json_as_in_a_cell_of_a_csv_file() -> None:
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [USER, BAD]}
    assert preference({column: json.dumps(value) for column, value in row.items()}) == preference(row)
    whole = {"chosen": json.dumps([USER, GOOD]), "rejected": json.dumps([USER, BAD])}
    assert preference(whole) == preference({"prompt": "Hello", "chosen": "Hi", "rejected": "What?"})
    assert (
        preference({"prompt": "List", "chosen": "[1, 2]", "rejected": "[]"}).chosen.messages[1]["content"] == "[1, 2]"
    )


ASKED = [{"role": "user", "content": "Again?"}]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ([USER, GOOD], [USER, BAD], [USER]),
        ([USER, GOOD, *ASKED, GOOD], [USER, GOOD, *ASKED, BAD], [USER, GOOD, *ASKED]),
        ([USER, GOOD, *ASKED, BAD], [USER, GOOD, *ASKED, BAD, *ASKED, GOOD], [USER, GOOD, *ASKED]),
    ],
)
def test_the_prompt_is_what_both_begin_with(chosen: list[Any], rejected: list[Any], prompt: list[Any]) -> None:
    found = preference({"chosen": chosen, "rejected": rejected})
    assert found == Preference(prompt, Conversation(chosen), Conversation(rejected))


def test_a_prompt_that_is_nowhere_is_missed() -> None:
    with pytest.raises(ValueError, match="prompt is missing: chosen and rejected may hold it where both are lists"):
        preference({"chosen": "Hi", "rejected": "What?"})
    with pytest.raises(ValueError, match="prompt is missing, and chosen and rejected share no message at their start"):
        preference({"chosen": [GOOD], "rejected": [BAD]})
