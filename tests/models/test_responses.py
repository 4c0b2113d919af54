"""What a model wrote, taken apart by its own format: whole, and token by token."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from llsflow.models.responses import FORMATS, Call, ResponseFormat, Said, call_format
from tests.data.test_learned import applied
from tests.templates import TEMPLATES, Structure, tokenizer_of
from tests.templates.rows import row

Found = tuple[str, str, list[tuple[str, Any]]]


def found(said: Said) -> Found:
    return said.text, said.reasoning, [(call.name, json.loads(call.arguments)) for call in said.calls]


def read(tokenizer: Any, prompt: str, own: str, *, calls: bool = True, **how: bool) -> Said:
    """Return what an answer says, the same whole and in tokens."""
    form = ResponseFormat.of(tokenizer)
    whole = form.reader(prompt, calls=calls, **how)
    whole.rest(own)
    reader, told = form.reader(prompt, calls=calls, **how), Said()
    pieces = [tokenizer.decode([token]) for token in tokenizer(own, add_special_tokens=False)["input_ids"]]
    if "".join(pieces) != own:
        pieces = [own]
    for said in (*map(reader.more, pieces), reader.rest()):
        told = Said(told.text + said.text, told.reasoning + said.reasoning, told.calls + said.calls)
    assert told == reader.made == whole.made
    return told


@pytest.mark.parametrize("structure", TEMPLATES, ids=lambda structure: structure.name)
def test_what_a_template_writes_is_read_back(structure: Structure) -> None:
    tokenizer = tokenizer_of(structure)
    read_back = 0
    for seed in range(12):
        asked = row(structure, seed)
        for place, turn in enumerate(asked["messages"]):
            if turn["role"] != "assistant":
                continue
            prompt = applied(tokenizer, asked, place, prompt=True)[0]
            until = applied(tokenizer, asked, place + 1)[0]
            if not until.startswith(prompt):
                continue  # a template that leaves thoughts out writes nothing that a model would
            own = structure.owned(until)[-1]
            for end in ("\n<|endoftext|>", "<|end|>", structure.marks[0]):
                own = own.removesuffix(end)
            text, *others = found(read(tokenizer, prompt, own, calls="tools" in asked))
            calls = [(call["function"]["name"], call["function"]["arguments"]) for call in turn.get("tool_calls", ())]
            assert (text.strip(), *others) == (turn.get("content", ""), turn.get("reasoning_content", ""), calls)
            read_back += 1
    assert read_back or structure.thoughts_opened


CALL = '{"name": "get_time", "arguments": {"city": "Oslo", "days": 2}}'
TIME = ("get_time", {"city": "Oslo", "days": 2})


@pytest.mark.parametrize(
    ("marks", "written", "calls"),
    [
        (
            "<tool_call> <function= <parameter=",
            "<tool_call>\n<function=get_time>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
            "</function>\n</tool_call>",
            [TIME],
        ),
        (
            "<tool_call> <arg_key>",
            "<tool_call>get_time\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>"
            "<arg_value>2</arg_value></tool_call>",
            [TIME],
        ),
        (
            "[TOOL_CALLS] [ARGS]",
            '[TOOL_CALLS]get_time[ARGS]{"city": "Oslo", "days": 2}[TOOL_CALLS]get_time[ARGS]{}',
            [TIME, ("get_time", {})],
        ),
        ("<|START_ACTION|>", f"<|START_ACTION|>[{CALL.replace('name', 'tool_name')}]<|END_ACTION|>", [TIME]),
        ("<|tool_call|>", f"<|tool_call|>[{CALL}]<|/tool_call|>", [TIME]),
        ("<tool_call>", f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>", [TIME, TIME]),
        (
            "<｜tool▁calls▁begin｜>",
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{"city": "Oslo", "days": 2}'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [TIME],
        ),
        ('ipython "parameters": ', '{"name": "get_time", "parameters": {"city": "Oslo", "days": 2}}', [TIME]),
    ],
)
def test_formats_of_published_models(marks: str, written: str, calls: list[Any]) -> None:
    tokenizer = tokenizer_of(TEMPLATES[0])
    tokenizer.chat_template = f"{{% if tools %}}{marks}{{% endif %}}"
    assert found(read(tokenizer, "", written)) == ("", "", calls)
    assert found(read(tokenizer, "", f"I look it up.\n{written}"))[2] == ([] if "ipython" in marks else calls)
    first = read(tokenizer, "", written, one=True)
    assert len(first.calls) == 1


def test_every_format_is_known_by_its_marks_and_by_no_other() -> None:
    for form in FORMATS:
        assert call_format("tools " + " ".join(form.marks)) is form
    assert call_format("<tool_call>") is None, "a template that writes no tools offers none"


def test_a_call_that_cannot_be_read_is_told_as_it_was_written() -> None:
    tokenizer = tokenizer_of(next(one for one in TEMPLATES if one.name == "hermes"))
    broken = '{"name": "get_time", "arguments": {"city": '
    assert read(tokenizer, "", f"<tool_call>{broken}</tool_call>").calls == (Call("get_time", broken.strip()),)
    said = read(tokenizer, "", "<tool_call>what?</tool_call>")
    assert (said.calls, said.text) == ((), "what?")


def test_what_has_to_be_a_call_is_json_in_any_format() -> None:
    tokenizer = tokenizer_of(next(one for one in TEMPLATES if one.name == "mistral_v7"))
    said = read(tokenizer, "", '{"name": "get_time", "parameters": {"city": "Oslo", "days": 2}}', must_call=True)
    assert found(said) == ("", "", [TIME])


def test_an_answer_without_reasoning_or_calls_is_left_as_it_is() -> None:
    tokenizer = tokenizer_of(next(one for one in TEMPLATES if one.name == "qwen3"))
    assert read(tokenizer, "", " yes \n\n no \n").text == " yes \n\n no \n"
    assert read(tokenizer, "", "<think>\nhm\n</think>\n\nyes \n") == Said("yes", "hm")
    assert read(tokenizer, "<|im_start|>assistant\n<think>\n", "hm\n</think>\n\nyes") == Said("yes", "hm")
    assert read(tokenizer, "<|im_start|>assistant\n<think>\n", "hm") == Said("", "hm")


def test_a_tokenizers_own_response_template_comes_first() -> None:
    tokenizer = tokenizer_of(TEMPLATES[0])
    tokenizer.response_template = {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "content": {"content": "text"},
            "tool_calls": {
                "open": "CALL ",
                "close": "!",
                "content": "json",
                "repeats": True,
                "transform": {"type": "function", "function": "{content}"},
            },
        },
    }
    prompt = "<|im_start|>assistant\n"
    assert ResponseFormat.of(copy.deepcopy(tokenizer)).reads_calls
    assert found(read(tokenizer, prompt, f"I look. CALL {CALL}!"))[2] == [TIME]
