"""Completions as servers differ in sending them: calls, contents, reasoning, and the events they come in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llsflow.models.calls import arguments_sent
from llsflow.models.completion import BrokenOffError, Said
from llsflow.models.events import DONE, EventReader, failure_of

ONE, TWO = '{"x": 1}', '{"x": 2}'


def part(index: Any, call_id: Any, name: str | None, arguments: Any) -> dict[str, Any]:
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def said(*deltas: dict[str, Any]) -> Said:
    found = Said()
    for delta in deltas:
        found.take({"choices": [{"index": 0, "delta": delta}]})
    found.end()
    return found


BOTH = [("add", ONE), ("mul", TWO)]


@pytest.mark.parametrize(
    ("parts", "calls"),
    [
        ([[part(0, "a", "add", ONE)], [part(0, "b", "mul", TWO)]], BOTH),
        ([[part(None, "a", "add", ONE)], [part(None, "b", "mul", TWO)]], BOTH),
        ([[part(None, None, "add", ONE), part(None, None, "mul", TWO)]], BOTH),
        ([[part(0, "", "add", ONE), part(0, "", "mul", TWO)]], BOTH),
        ([[part(0, "", "add", ONE)], [part(0, "", "add", ONE)]], [("add", ONE), ("add", ONE)]),
        ([[part(0, "a", "add", ONE), part(1, "a", "mul", TWO)]], BOTH),
        ([[part(1, "a", "add", ONE)], [part(2, "b", "mul", TWO)]], BOTH),
        ([[part(0, "a", "add", '{"x"')], [part(0, "b", None, ": 1}")]], [("add", ONE)]),
        ([[part(0, "a", "add", "")], [part(0, "a", "add", '{"x"')], [part(0, "a", "add", ": 1}")]], [("add", ONE)]),
        ([[part(0, "a", "add", ONE)], [part(0, "a", "add", ONE)]], [("add", ONE)]),
        ([[part(0, "a", "add", {"x": 1})]], [("add", ONE)]),
        ([[part(0, "a", "now", None)]], [("now", "{}")]),
        *(
            (
                [[part(index, None, "add", "")], [part(index, None, None, '{"x"')], [part(index, None, None, ": 1}")]]
                * 2,
                [("add", ONE), ("add", ONE)],
            )
            for index in (0, None)
        ),
        ([[part(0, "a", "add", "{}")], [part(0, "a", None, '{"x"')], [part(0, "a", None, ": 1}")]], [("add", ONE)]),
        ([[part(0, "a", "add", {})], [part(0, "a", "add", {"x": 1})]], [("add", ONE)]),
        ([[part(0, "a", "add", ONE)], [part(0, "b", None, "")], [part(0, "c", None, "\n")]], [("add", ONE + "\n")]),
        ([[{"index": 0, "id": "a", "function": None}], [part(0, "a", "add", ONE)]], [("add", ONE)]),
        ([[part(0, "a", "add", '{"x"')], [part(0, "b", "add", ": 1}")]], [("add", ONE)]),
        ([[part(0, "a", "add", ONE)], [part(0, "b", "add", ONE)]], [("add", ONE), ("add", ONE)]),
        ([[part(0, "a", "now", "{}")], [part(0, "b", "now", "{}")]], [("now", "{}"), ("now", "{}")]),
    ],
)
def test_calls_stay_apart_and_names_are_not_repeated(
    parts: list[list[dict[str, Any]]], calls: list[tuple[str, str]]
) -> None:
    found = said(*({"tool_calls": one} for one in parts)).calls
    assert [(call.tool_name, call.arguments) for call in found] == calls
    assert len({call.call_id for call in found}) == len(calls)


def test_a_call_that_is_sent_in_both_ways_is_one() -> None:
    """llama-cpp-python sends `function_call` beside `tool_calls`, each whole or in the same pieces."""
    whole = {"tool_calls": [part(0, "a", "add", ONE)], "function_call": {"name": "add", "arguments": ONE}}
    assert [call.arguments for call in said(whole).calls] == [ONE]
    pieces = [
        {"tool_calls": [part(0, "a", "add", one)], "function_call": {"name": "add", "arguments": one}}
        for one in ('{"x"', ": 1", "}")
    ]
    assert [call.arguments for call in said(*pieces).calls] == [ONE]
    assert [call.arguments for call in said({"function_call": {"name": "add", "arguments": ONE}}).calls] == [ONE]


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        *(("stop", "stop"), ("tool_calls", "stop"), ("eos", "stop"), ("length", "length"), ("max_tokens", "length")),
        *(("MAX_TOKENS", "length"), ("model_length", "length"), ("content_filter", "content_filter")),
        *(("SAFETY", "content_filter"), ("sensitive", "content_filter"), ("error", None), ("abort", None)),
        *(("insufficient_system_resource", None), ("network_error", None)),
    ],
)
def test_why_servers_end_an_answer(reason: str, ending: str | None) -> None:
    found = Said()
    found.take({"choices": [{"index": 0, "message": {"content": "half"}, "finish_reason": reason}]})
    if ending is None:
        with pytest.raises(BrokenOffError, match=f"in the middle of its answer: finish_reason '{reason}'"):
            found.end()
    else:
        found.end()
        assert found.ending == ending


@pytest.mark.parametrize("event", [{"object": "error", "message": "engine dead", "code": 500}, {"detail": "boom"}])
def test_a_failure_in_the_middle_of_a_stream_is_told_in_every_form(event: dict[str, Any]) -> None:
    found = Said()
    found.take({"choices": [{"index": 0, "delta": {"content": "half"}}]})
    with pytest.raises(BrokenOffError, match=r"in the middle of its answer: (engine dead|boom)"):
        found.take(event)
    assert found.take({"choices": [], "usage": {"completion_tokens": 3}}) == ("", "")


def test_an_answer_that_is_withheld_whole_is_filtered() -> None:
    found = Said()
    found.take({"choices": [{"index": 0, "finish_reason": "content_filter", "message": None}]})
    found.end()
    assert (found.text, found.ending) == ("", "content_filter")


@pytest.mark.parametrize(
    ("text", "sent"),
    [('{"x": 1', "{}"), ("[1]", "{}"), ("", "{}"), ('{"x": NaN}', "{}"), (ONE, ONE), (json.dumps(ONE), ONE)],
)
def test_arguments_go_back_as_a_json_object(text: str, sent: str) -> None:
    assert arguments_sent(text) == sent


@pytest.mark.parametrize(
    ("delta", "text", "reasoning"),
    [
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, "", "hm"),
        ({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}, "42", ""),
        ({"content": "42", "reasoning_content": "hm"}, "42", "hm"),
        ({"content": "42", "reasoning": "hm", "reasoning_content": "hm"}, "42", "hm"),
        ({"content": "42", "thinking": "hm"}, "42", "hm"),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "[image_url, which is no text]", ""),
    ],
)
def test_content_and_reasoning(delta: dict[str, Any], text: str, reasoning: str) -> None:
    found = said(delta)
    assert (found.text, found.reasoning) == (text, reasoning)


def test_another_choice_is_not_added_and_halves_of_a_character_are_joined() -> None:
    found = Said()
    found.take({"choices": [{"index": 1, "delta": {"content": "WRONG"}}]})
    with pytest.raises(BrokenOffError, match="index 0"):
        found.end()
    found.take({"choices": [{"index": 0, "delta": {"content": "\ud83d"}}]})
    found.take({"choices": [{"index": 0, "delta": {"content": "\ude00"}}]})
    assert found.text == "\U0001f600"


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n',
        b'data: {"a": 1}\r\n\r\ndata: {"b": 2}\r\n\r\ndata: [DONE]\r\n\r\n',
        b': comment\n\ndata:{"a": 1}\nid: 3\n\nevent: ping\n\ndata: {\ndata: "b": 2}\n\ndata: [DONE]',
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events(body: bytes, size: int) -> None:
    reader = EventReader()
    found = [one for at in range(0, len(body), size) for one in reader.feed(body[at : at + size])]
    assert [*found, *reader.end()] == [{"a": 1}, {"b": 2}, DONE]


@pytest.mark.parametrize(
    ("body", "message", "status"),
    [
        ({"error": {"message": "too long", "code": 400}}, "too long", 400),
        ({"error": "engine died"}, "engine died", None),
        ([{"error": {"message": "quota", "code": 429}}], "quota", 429),
        ({"object": "error", "message": "no", "code": 404}, "no", 404),
    ],
)
def test_failures_in_bodies(body: Any, message: str, status: int | None) -> None:
    found = failure_of(body)
    assert found is not None
    assert (found.message, found.status) == (message, status)
    assert failure_of({"choices": [], "error": None}) is None
