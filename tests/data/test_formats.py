"""Row formats: what they make of good rows, and the sentence for bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.data import FORMATS, evaluation_row, row_format, training_row
from llsflow.schema.datasets import DatasetPurpose

USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize(
    ("row", "conversation"),
    [
        ({"messages": [USER, ANSWER]}, [USER, ANSWER]),
        ({"prompt": "Hello", "completion": "Hi"}, [USER, ANSWER]),
        ({"question": "Hello", "answer": "Hi"}, [USER, ANSWER]),
        ({"question": "Hello", "answer": "Hi", "weight": 2}, [USER, ANSWER]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}, ANSWER]}, [USER, ANSWER]),
    ],
)
def test_training_rows(row: dict[str, Any], conversation: list[dict[str, str]]) -> None:
    assert training_row(row) == conversation


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Hello", "answer": "Hi"},
        {"messages": [USER], "answer": "Hi"},
        {"messages": [USER, ANSWER]},
        {"prompt": "Hello", "completion": "Hi"},
        {"input_query": "Hello", "expected_answer": "Hi"},
        {"chat_completion_input": '[{"role": "user", "content": "Hello"}]', "expected_answer": "Hi"},
        {"chat_completion_input": [USER], "input_query": "for the judge", "expected_answer": "Hi"},
        {"prompt": "Hello", "chosen": "Hi", "rejected": "What?"},
    ],
)
def test_evaluation_rows(row: dict[str, Any]) -> None:
    assert evaluation_row(row) == ([USER], "Hi")


def test_every_turn_before_the_answer_is_the_question() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert evaluation_row({"messages": [system, USER, ANSWER, USER], "answer": "x"})[0] == [system, USER, ANSWER, USER]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "x"}, r"columns are text: purpose post-training/messages takes messages or prompt\+completion or"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            r"is for preference optimisation .recipe.kind: dpo.: supervised fine-tuning takes",
        ),
        ({"prompt": "", "completion": "x"}, "prompt is empty: a text is needed"),
        ({"prompt": 3, "completion": "x"}, "prompt is int '3': a text is needed"),
        ({"prompt": None, "completion": "x"}, "prompt is missing: a text is needed"),
        ({"messages": "Hello"}, "messages is str 'Hello': a list of messages is needed"),
        ({"messages": []}, "a list of messages is needed"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\].role is 'bot': allowed are system, user"),
        ({"messages": [USER, {"role": "assistant"}]}, r"messages\[1\].content is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "a part of type 'image'"),
        ({"messages": [USER]}, "no assistant turn with text: there is nothing to learn"),
    ],
)
def test_bad_rows(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        training_row(row)


def test_an_evaluation_question_must_not_be_answered_already() -> None:
    with pytest.raises(ValueError, match="ends with an assistant turn"):
        evaluation_row({"messages": [USER, ANSWER], "answer": "Hi"})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("Hello", "chat_completion_input is text, but not JSON"),
        ("{}", "chat_completion_input is dict '{}': a list of messages is needed"),
        ('[{"role": "bot", "content": ""}]', r"chat_completion_input\[0\].role is 'bot'"),
        ([USER, ANSWER], "chat_completion_input ends with an assistant turn"),
        ("[" * 100_000, "chat_completion_input is text, but not JSON"),
    ],
)
def test_bad_questions_of_older_data_sets(value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluation_row({"chat_completion_input": value, "expected_answer": "x"})


@pytest.mark.parametrize("purpose", list(DatasetPurpose))
def test_every_purpose_reads_its_columns_and_no_others(purpose: DatasetPurpose) -> None:
    for known in FORMATS[purpose]:
        assert row_format(dict.fromkeys(known.columns), purpose) is known
    with pytest.raises(ValueError, match=f"purpose {purpose} takes"):
        row_format({"nothing": 1}, purpose)
