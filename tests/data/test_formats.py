"""Row formats: what they make of good rows, and the sentence for bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.data import FORMATS, evaluation_row, row_format, training_row
from llsflow.data.conversation import Conversation
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
    assert training_row(row) == Conversation(conversation)  # type: ignore[arg-type]


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
    assert evaluation_row(row) == (Conversation([USER]), "Hi")  # type: ignore[list-item]


def test_every_turn_before_the_answer_is_the_question() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert evaluation_row({"messages": [system, USER, ANSWER, USER], "answer": "x"})[0].messages == [
        system,
        USER,
        ANSWER,
        USER,
    ]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"body": "x"}, r"columns are body: purpose post-training/messages takes messages or conversations or prompt"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            r"is for preference optimisation .recipe.kind: dpo.: supervised fine-tuning takes",
        ),
        ({"prompt": "", "completion": "x"}, "prompt is empty: a text is needed"),
        ({"prompt": 3, "completion": "x"}, "prompt is int '3': a text is needed"),
        ({"prompt": None, "completion": "x"}, r"columns are prompt \(null\), completion: purpose"),
        ({"messages": "Hello"}, "messages is str 'Hello': a list of messages is needed"),
        ({"messages": []}, "a list of messages is needed"),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            r"messages\[0\].role is 'bot': allowed are system, developer, user",
        ),
        ({"messages": [USER, {"role": "assistant"}]}, r"messages\[1\].content is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "a part of type 'image'"),
        ({"messages": [USER]}, "no assistant turn with text or calls: there is nothing to learn"),
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
        ("Hello", "chat_completion_input is str 'Hello': a list of messages is needed"),
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
        row = dict.fromkeys(known.columns if known.answered else (*known.columns, "kwargs"), "x")
        assert row_format(row, purpose) is known
    with pytest.raises(ValueError, match=f"purpose {purpose} takes"):
        row_format({"nothing": 1}, purpose)


QUESTIONS = [
    {"question": "Hello"},
    {"prompt": "Hello"},
    {"input_query": "Hello"},
    {"messages": [USER]},
    {"chat_completion_input": '[{"role": "user", "content": "Hello"}]'},
]


@pytest.mark.parametrize("purpose", [DatasetPurpose.EVAL_QUESTION_ANSWER, DatasetPurpose.EVAL_MESSAGES_ANSWER])
@pytest.mark.parametrize("asked", QUESTIONS)
def test_rows_without_an_answer_have_columns_that_say_what_a_good_one_is(
    asked: dict[str, Any], purpose: DatasetPurpose
) -> None:
    row = {**asked, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert evaluation_row(row) == (Conversation([USER]), None)  # type: ignore[list-item]
    if "messages" not in asked or purpose is DatasetPurpose.EVAL_MESSAGES_ANSWER:
        known = row_format(row, purpose)
        assert (known.read(row).messages, known.prompt(row)) == ([USER], [USER])
        assert row_format(asked, purpose) is known
    if "messages" not in asked:
        with pytest.raises(ValueError, match="columns are"):
            row_format(row, DatasetPurpose.POST_TRAINING_MESSAGES)


@pytest.mark.parametrize("answer", ["completion", "expected_answer", "answer"])
def test_a_row_with_an_answer_is_read_with_it_or_not_at_all(answer: str) -> None:
    """An answer beside the wrong question is a mistake in the data, and no row without an answer."""
    wrong = {"completion": "question", "expected_answer": "prompt", "answer": "input_query"}[answer]
    with pytest.raises(ValueError, match="columns are"):
        row_format({wrong: "Hello", answer: "Hi", "id": 5}, DatasetPurpose.EVAL_QUESTION_ANSWER)


def test_messages_without_an_answer_must_ask() -> None:
    row = {"messages": [USER, ANSWER], "kwargs": []}
    with pytest.raises(ValueError, match="ends with an assistant turn"):
        row_format(row, DatasetPurpose.EVAL_MESSAGES_ANSWER).read(row)
    found, expected = evaluation_row({"messages": [USER, ANSWER, USER]})
    assert (found.messages, expected) == ([USER, ANSWER, USER], None)
    with pytest.raises(ValueError, match="nothing but an assistant turn"):
        evaluation_row({"messages": [ANSWER]})
