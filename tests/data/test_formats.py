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


HELLO = [USER, ANSWER]
SHAREGPT = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
CALL = {"name": "get_time", "arguments": {"city": "Oslo"}}


@pytest.mark.parametrize(
    ("row", "conversation"),
    [
        ({"conversations": SHAREGPT}, [USER, ANSWER]),
        (
            {"conversations": SHAREGPT, "system": "Be brief."},
            [{"role": "system", "content": "Be brief."}, USER, ANSWER],
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hello"},
                    {"from": "function_call", "value": '{"name": "get_time", "arguments": {"city": "Oslo"}}'},
                    {"from": "observation", "value": {"time": "noon"}},
                    {"from": "gpt", "value": "Hi", "weight": 0},
                ]
            },
            [
                USER,
                {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
                {"role": "tool", "content": '{"time": "noon"}'},
                {**ANSWER, "weight": 0},
            ],
        ),
        ({"instruction": "Hello", "input": "", "output": "Hi"}, [USER, ANSWER]),
        (
            {"instruction": "Hello", "input": "there", "output": "Hi"},
            [{"role": "user", "content": "Hello\nthere"}, ANSWER],
        ),
        (
            {"messages": '[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]'},
            [USER, ANSWER],
        ),
        ({"messages": None, "prompt": "Hello", "completion": "Hi"}, [USER, ANSWER]),
        ({"messages": [USER, ANSWER], "prompt": None, "completion": None}, [USER, ANSWER]),
        ({"messages": [{**USER, "tool_calls": None, "weight": None, "name": None}, ANSWER]}, [USER, ANSWER]),
    ],
)
def test_further_forms_of_training_rows(row: dict[str, Any], conversation: list[Any]) -> None:
    assert training_row(row) == Conversation(conversation)


@pytest.mark.parametrize(
    ("row", "conversation"),
    [
        ({"instruction": "Hello", "output": "Hi", "system": "S"}, [{"role": "system", "content": "S"}, USER, ANSWER]),
        ({"prompt": [USER], "completion": [ANSWER]}, [USER, ANSWER]),
        ({"prompt": [USER, ANSWER, USER], "completion": "Hi"}, [USER, {**ANSWER, "weight": 0}, USER, ANSWER]),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
                    {"role": "function", "name": "now", "content": "noon"},
                    ANSWER,
                ]
            },
            [
                USER,
                {
                    "role": "assistant",
                    "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": {}}}],
                },
                {"role": "tool", "name": "now", "content": "noon"},
                ANSWER,
            ],
        ),
    ],
    ids=["alpaca-system", "messages", "earlier-answer", "function_call"],
)
def test_forms_that_other_tools_read(row: dict[str, Any], conversation: list[Any]) -> None:
    assert training_row(row) == Conversation(conversation)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": [ANSWER], "completion": "Hi"}, "prompt ends with an assistant turn"),
        ({"prompt": "Hello", "completion": [USER]}, "completion must end with the assistant's answer"),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a": 1, "a": 2}'}]}]},
            r"arguments is text, but the key 'a' is there twice in one object",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a": NaN}'}]}]},
            r"arguments is text, but not JSON: NaN is no number there",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a": "\\ud83d"}'}]}]},
            r"messages\[1\].tool_calls\[0\].function.arguments holds text that is not valid Unicode",
        ),
        ({"messages": '[{"role": "user", "content": "\\ud83d"}]'}, "messages holds text that is not valid Unicode"),
        (
            {"messages": '[{"role": "user", "content": "a", "content": "b"}]'},
            "messages is text, but the key 'content' is there twice",
        ),
    ],
)
def test_json_within_a_text_is_read_as_strictly_as_a_file(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        training_row(row)


def test_plain_text_is_no_conversation() -> None:
    assert training_row({"text": "Hello"}) == "Hello"
    with pytest.raises(ValueError, match="columns are text"):
        evaluation_row({"text": "Hello"})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"messages": [{**ANSWER, "tool_call": []}, {**ANSWER, "audio": {}}]},
            r"messages\[1\].audio is not read by",
        ),
        (
            {"messages": [{**USER, "tool_calls": [CALL]}, ANSWER]},
            r"messages\[0\].tool_calls is for messages of",
        ),
        (
            {"messages": [USER, {**ANSWER, "weight": 0.5}]},
            r"messages\[1\].weight is 0.5: allowed are 0",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]},
            r"messages\[1\].tool_calls\[0\].function.arguments is str 'x': an object is needed",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]},
            r"messages\[1\].tool_calls\[0\].function.name is missing",
        ),
        (
            {"messages": [USER, {**ANSWER, "reasoning": "a", "thinking": "b"}]},
            r"messages\[1\]: reasoning and thinking are names of the same and differ",
        ),
        ({"messages": [USER, ANSWER], "tools": [{"function": {}}]}, r"tools\[0\].function.name is missing"),
        ({"messages": [USER, ANSWER], "tools": [CALL], "functions": [CALL]}, "tools and functions are both there"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, r"conversations\[0\].from is 'bot': allowed are system"),
        ({"conversations": [{"from": "human", "value": 3}]}, r"conversations\[0\].value is int '3'"),
        (
            {"prompt": "Hello", "completion": "GO AWAY", "label": False},
            "label is False: prompt.completion.label is an unpaired preference .as for KTO.",
        ),
    ],
)
def test_what_no_conversation_holds_is_named(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        training_row(row)


def test_an_empty_expected_answer_is_an_answer() -> None:
    assert evaluation_row({"question": "Hello", "answer": ""})[1] == ""
    with pytest.raises(ValueError, match="answer is empty"):
        training_row({"question": "Hello", "answer": ""})


def test_the_sentence_about_columns_says_how_to_rename_them() -> None:
    with pytest.raises(ValueError, match=r"columns are q, a: .* dataset.columns='{prompt: YOUR_COLUMN"):
        training_row({"q": "Hello", "a": "Hi"})
