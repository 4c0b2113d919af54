"""The wire of turns, event by event and field by field, as the reference server's official client reads it.

Beyond the reference server's fields there are `usage` of inference steps and `error` of turns.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.api.conftest import Served
from tests.api.talks import ADD, ANSWERS, Talk, talk
from tests.api.test_turn_shields import shield
from tests.scripted import Answer, Scripted

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


class Wire:
    """Names for ids, in the order in which they come, so that events can be written down."""

    def __init__(self, one: Talk) -> None:
        self.names = {one.session_id: "SESSION"}

    def plain(self, value: Any) -> Any:
        """Return a value with names for ids, and TIME for times."""
        if isinstance(value, dict):
            return {key: self.plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.plain(inner) for inner in value]
        if isinstance(value, str) and TIME.match(value):
            return "TIME"
        if isinstance(value, str) and UUID.match(value):
            return self.names.setdefault(value, f"ID{len(self.names)}")
        return value


def events(served: Served, wire: Wire, one: Talk, place: str, body: dict[str, Any]) -> list[Any]:
    base = f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}"
    text = served.http.post(f"{base}/{place}", json={**body, "stream": True}).text
    chunks = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
    assert all(list(chunk) == ["event"] and list(chunk["event"]) == ["payload"] for chunk in chunks)
    return [wire.plain(chunk["event"]["payload"]) for chunk in chunks]


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def step(step_id: str, step_type: str, turn_id: str = "ID1", **more: Any) -> dict[str, Any]:
    times = {"started_at": "TIME", "completed_at": "TIME"}
    return {"turn_id": turn_id, "step_id": step_id, **times, "step_type": step_type, **more}


def message(content: str, stop_reason: str = "end_of_turn", calls: Any = ()) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "stop_reason": stop_reason, "tool_calls": list(calls)}


def inference(step_id: str, *of: Any, **how: Any) -> dict[str, Any]:
    return step(step_id, "inference", model_response=message(*of, **how), usage=USAGE)


def begin(step_id: str, step_type: str, metadata: Any = None) -> dict[str, Any]:
    start = {"event_type": "step_start", "step_type": step_type, "step_id": step_id}
    return {**start, "metadata": metadata or {}}


def progress(step_id: str, delta: dict[str, Any], step_type: str = "inference") -> dict[str, Any]:
    return {"event_type": "step_progress", "step_type": step_type, "step_id": step_id, "delta": delta}


def text(step_id: str, piece: str) -> dict[str, Any]:
    return progress(step_id, {"type": "text", "text": piece})


def call_delta(step_id: str, call: Any, status: str, step_type: str = "inference") -> dict[str, Any]:
    return progress(step_id, {"type": "tool_call", "tool_call": call, "parse_status": status}, step_type)


def complete(details: dict[str, Any]) -> dict[str, Any]:
    of = {"step_type": details["step_type"], "step_id": details["step_id"]}
    return {"event_type": "step_complete", **of, "step_details": details}


def turn(asked: str, steps: list[Any], output: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"turn_id": "ID1", "session_id": "SESSION"},
        "input_messages": [{"role": "user", "content": asked, "context": None}],
        **{"steps": steps, "output_message": output, "output_attachments": []},
        **{"started_at": "TIME", "completed_at": "TIME", "error": None},
    }


START = {"event_type": "turn_start", "turn_id": "ID1"}


def test_a_plain_turn(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    details = inference("ID2", "a fine answer")
    assert events(served, Wire(one), one, "turn", said("hello")) == [
        START,
        begin("ID2", "inference"),
        *(text("ID2", piece) for piece in ("a ", "fine ", "answer")),
        complete(details),
        {"event_type": "turn_complete", "turn": turn("hello", [details], message("a fine answer"))},
    ]


def test_shields_that_find_nothing_and_one_that_stops_the_turn(served: Served, script: Scripted) -> None:
    shield("s")
    one = talk(served, script, input_shields=["s"], output_shields=["s"])
    before, details, after = (
        step("ID2", "shield_call", violation=None),
        inference("ID3", "a fine answer"),
        step("ID4", "shield_call", violation=None),
    )
    assert events(served, Wire(one), one, "turn", said("hello")) == [
        START,
        begin("ID2", "shield_call", {"touchpoint": "user-input"}),
        complete(before),
        begin("ID3", "inference"),
        *(text("ID3", piece) for piece in ("a ", "fine ", "answer")),
        complete(details),
        begin("ID4", "shield_call", {"touchpoint": "assistant-output"}),
        complete(after),
        {"event_type": "turn_complete", "turn": turn("hello", [before, details, after], message("a fine answer"))},
    ]
    metadata = {"pattern": "sword[a-z]+", "pattern_index": 0, "shield_id": "s"}
    violation = {"violation_level": "error", "user_message": "Not that.", "metadata": metadata}
    stopped = step("ID2", "shield_call", violation=violation)
    assert events(served, Wire(one), one, "turn", said("swordfish")) == [
        START,
        begin("ID2", "shield_call", {"touchpoint": "user-input"}),
        complete(stopped),
        {"event_type": "turn_complete", "turn": turn("swordfish", [stopped], message("Not that."))},
    ]


CALL = {"call_id": "call_0", "tool_name": "calculator", "arguments": '{"expression": "6 * 7"}'}


def test_a_tool_of_the_server(served: Served, script: Scripted) -> None:
    ANSWERS["6 * 7?"] = Answer(calls=[("calculator", CALL["arguments"])])
    one = talk(served, script, toolgroups=["calculator"])
    first = inference("ID2", "", "end_of_message", [CALL])
    answered = {"call_id": "call_0", "tool_name": "calculator", "content": "42", "metadata": None}
    ran = step("ID3", "tool_execution", tool_calls=[CALL], tool_responses=[answered])
    second = inference("ID4", "it is 42")
    assert events(served, Wire(one), one, "turn", said("6 * 7?")) == [
        START,
        begin("ID2", "inference"),
        call_delta("ID2", "calculator", "in_progress"),
        call_delta("ID2", CALL["arguments"], "in_progress"),
        call_delta("ID2", CALL, "succeeded"),
        complete(first),
        begin("ID3", "tool_execution"),
        call_delta("ID3", CALL, "in_progress", "tool_execution"),
        complete(ran),
        begin("ID4", "inference"),
        *(text("ID4", piece) for piece in ("it ", "is ", "42")),
        complete(second),
        {"event_type": "turn_complete", "turn": turn("6 * 7?", [first, ran, second], message("it is 42"))},
    ]


@pytest.mark.parametrize("bare", [True, False])
def test_a_tool_of_the_caller_and_its_answer(served: Served, script: Scripted, bare: bool) -> None:
    one = talk(served, script, client_tools=[ADD])
    wire = Wire(one)
    call = {"call_id": "call_0", "tool_name": "add", "arguments": '{"x": 41}'}
    first = inference("ID2", "", "end_of_message", [call])
    *others, last = events(served, wire, one, "turn", said("please add"))
    assert [other["event_type"] for other in others] == [
        *("turn_start", "step_start", "step_progress", "step_progress", "step_progress", "step_complete"),
    ]
    waiting = turn("please add", [first], message("", "end_of_message", [call]))
    assert last == {"event_type": "turn_awaiting_input", "turn": waiting}
    response = {"call_id": "call_0", "tool_name": "add", "content": "42"}
    turn_id = next(found for found, name in wire.names.items() if name == "ID1")
    body = response if bare else {"tool_responses": [response]}
    ran = step("ID3", "tool_execution", tool_calls=[call], tool_responses=[{**response, "metadata": None}])
    second = inference("ID4", "it is 42")
    resumed = events(served, wire, one, f"turn/{turn_id}/resume", body)
    assert resumed == [
        START,
        complete(ran),
        begin("ID4", "inference"),
        *(text("ID4", piece) for piece in ("it ", "is ", "42")),
        complete(second),
        {"event_type": "turn_complete", "turn": turn("please add", [first, ran, second], message("it is 42"))},
    ]
