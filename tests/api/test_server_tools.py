"""Tools that the server runs: at once, in time, and what fails is told to the model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from llama_stack_client import BadRequestError, InternalServerError

from tests.api.conftest import Served
from tests.api.talks import ADD, ANSWERS, answer, kinds, talk
from tests.http_server import Handler, serve
from tests.patience import PATIENCE_SECONDS
from tests.scripted import Answer, Scripted


def called(script: Scripted) -> list[dict[str, Any]]:
    """Return what tools have answered, as the model was told it last."""
    return [message for message in script.sent[-1]["messages"] if message["role"] == "tool"]


def sums(*expressions: str) -> Answer:
    return Answer(calls=[("calculator", json.dumps({"expression": one})) for one in expressions])


def test_the_events_of_a_tool_of_the_server(served: Served, script: Scripted) -> None:
    ANSWERS["6 * 7?"] = sums("6 * 7")
    one = talk(served, script, toolgroups=["calculator"])
    payloads = one.stream("6 * 7?")
    assert kinds(payloads) == [
        "turn_start",
        *("step_start", "step_progress", "step_progress", "step_progress", "step_complete"),
        *("step_start", "step_progress", "step_complete"),
        *("step_start", "step_progress", "step_progress", "step_progress", "step_complete"),
        "turn_complete",
    ]
    start, progress, complete = payloads[6:9]
    assert {payload.step_type for payload in (start, progress, complete)} == {"tool_execution"}
    assert {payload.step_id for payload in (start, progress, complete)} == {complete.step_details.step_id}
    assert start.step_id != payloads[1].step_id
    assert (progress.delta.type, progress.delta.parse_status) == ("tool_call", "in_progress")
    assert progress.delta.tool_call.call_id == "call_0"
    step = complete.step_details
    assert [(call.tool_name, call.arguments) for call in step.tool_calls] == [("calculator", '{"expression": "6 * 7"}')]
    assert [(one.call_id, one.tool_name, one.content) for one in step.tool_responses] == [
        ("call_0", "calculator", "42")
    ]
    turn = payloads[-1].turn
    assert [step.step_type for step in turn.steps] == ["inference", "tool_execution", "inference"]
    assert turn.steps[0].api_model_response.stop_reason == "end_of_message"
    assert (turn.output_message.content, turn.output_message.tool_calls) == ("it is 42", [])
    assert called(script) == [{"role": "tool", "tool_call_id": "call_0", "content": "42"}]
    offered = script.sent[0]["tools"][0]["function"]
    assert (offered["name"], offered["parameters"]["required"]) == ("calculator", ["expression"])


@pytest.mark.parametrize(
    "groups", [["calculator/calculator"], [{"name": "calculator", "args": {"expression": "40 + 2"}}]]
)
def test_groups_are_named_with_a_tool_or_with_arguments(served: Served, script: Scripted, groups: list[Any]) -> None:
    ANSWERS["what now?"] = sums("1 + 1")
    one = talk(served, script, toolgroups=groups)
    one.say("what now?")
    given = isinstance(groups[0], dict)
    assert called(script)[0]["content"] == ("42" if given else "2")
    offered = script.sent[0]["tools"][0]["function"]["parameters"]
    assert ("expression" in offered["properties"]) is not given


def test_a_turn_adds_its_own_groups(served: Served, script: Scripted) -> None:
    one = talk(served, script, toolgroups=["calculator"])
    one.say("hello", toolgroups=["builtin::rag"])
    assert [tool["function"]["name"] for tool in script.sent[-1]["tools"]] == ["calculator", "knowledge_search"]
    one.say("hello")
    assert [tool["function"]["name"] for tool in script.sent[-1]["tools"]] == ["calculator"]


def test_the_servers_tools_run_before_the_turn_waits_for_the_callers(served: Served, script: Scripted) -> None:
    ANSWERS["both"] = Answer(calls=[("add", '{"x": 1}'), ("calculator", '{"expression": "2 + 2"}')])
    one = talk(served, script, toolgroups=["calculator"], client_tools=[ADD])
    payloads = one.stream("both")
    turn = payloads[-1].turn
    assert kinds(payloads)[-1] == "turn_awaiting_input"
    assert [step.step_type for step in turn.steps] == ["inference", "tool_execution"]
    (call,) = turn.output_message.tool_calls
    assert (call.tool_name, turn.output_message.stop_reason) == ("add", "end_of_message")
    one.resume(turn.turn_id, [answer(call, "42")])
    assert [message["content"] for message in called(script)] == ["4", "42"]


Answers = Callable[[str], tuple[int, str]]


@contextmanager
def backend(say: Answers) -> Iterator[str]:
    """Yield the address of a server whose answers are a status and a text for each path."""

    class Pages(Handler):
        def do_GET(self) -> None:
            status, text = say(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    with serve(Pages) as port:
        yield f"http://127.0.0.1:{port}"


def group(toolgroup_id: str, timeout: float = 30.0, **provider: Any) -> None:
    """Write a tool group."""
    folder = Path("conf/toolgroup")
    folder.mkdir(parents=True, exist_ok=True)
    values = {"toolgroup_id": toolgroup_id, "provider": provider, "timeout_seconds": timeout}
    (folder / f"{toolgroup_id}.yaml").write_text(yaml.safe_dump(values))


LOOK = {
    "name": "look",
    "path": "/things/{thing}",
    "input_schema": {
        "type": "object",
        "properties": {"thing": {"type": "string"}},
        "required": ["thing"],
        "additionalProperties": False,
    },
}


def looks(*things: str) -> Answer:
    return Answer(calls=[("look", json.dumps({"thing": thing})) for thing in things])


def test_calls_run_at_once_and_are_answered_in_their_order(served: Served, script: Scripted) -> None:
    all_there = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    last_first = [threading.Event() for _ in range(4)]
    last_first[3].set()

    def say(path: str) -> tuple[int, str]:
        all_there.wait()
        number = int(path[-1])
        last_first[number + 1].wait(PATIENCE_SECONDS)
        last_first[number].set()
        return 200, f"thing {number}"

    ANSWERS["look around"] = looks("0", "1", "2")
    with backend(say) as url:
        group("shop", type="http", base_url=url, functions=[LOOK])
        one = talk(served, script, toolgroups=["shop"])
        payloads = one.stream("look around")
    assert [message["content"] for message in called(script)] == ["thing 0", "thing 1", "thing 2"]
    of_tools = [payload for payload in payloads if getattr(payload, "step_type", "") == "tool_execution"]
    assert kinds(of_tools) == ["step_start", "step_progress", "step_complete"] * 3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("look", '{"thing": "broken"}'), "Error: HTTP 500: out of order"),
        (("look", '{"thing": "hanging"}'), "Error: no answer within 1 s"),
        (("look", '{"thing": 3}'), "Error: the arguments are not right: $.thing: 3 is not of type 'string'"),
        (("look", '{"thing": "x", "more": 1}'), "Error: the arguments are not right: $: Additional properties are"),
        (("look", '{"thing": '), "Error: the arguments are no JSON object: call it again with one"),
        (("find", "{}"), "Error: there is no function 'find'; known are look"),
        (("look", '{"thing": "../secret"}'), "you asked for /things/..%2Fsecret"),
        (("look", '{"thing": ".."}'), "Error: an argument of the path is '.' or '..': give a name"),
    ],
)
def test_what_fails_is_told_to_the_model_and_the_turn_goes_on(
    served: Served, script: Scripted, call: tuple[str, str], told: str
) -> None:
    released = threading.Event()

    def say(path: str) -> tuple[int, str]:
        if path.endswith("hanging"):
            released.wait(PATIENCE_SECONDS)
        return (500, "out of order") if path.endswith("broken") else (200, f"you asked for {path}")

    ANSWERS["look there"] = Answer(calls=[call])
    with backend(say) as url:
        group(
            "shop",
            type="http",
            base_url=url,
            functions=[LOOK],
            timeout=1.0 if "hanging" in call[1] else PATIENCE_SECONDS,
        )
        one = talk(served, script, toolgroups=["shop"])
        turn = one.say("look there")
        released.set()
    assert called(script)[0]["content"].startswith(told)
    assert turn.output_message.content == "it is 42"
    assert turn.steps[1].tool_responses[0].content == called(script)[0]["content"]


def test_a_reader_that_goes_away_ends_the_call(served: Served, script: Scripted) -> None:
    asked, released = threading.Event(), threading.Event()

    def say(path: str) -> tuple[int, str]:
        asked.set()
        released.wait(PATIENCE_SECONDS)
        return 200, path

    ANSWERS["look for long"] = looks("x")
    with backend(say) as url:
        group("shop", type="http", base_url=url, functions=[LOOK])
        one = talk(served, script, toolgroups=["shop"], enable_session_persistence=True)
        place = f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}/turn"
        body = {"messages": [{"role": "user", "content": "look for long"}], "stream": True}
        with httpx.Client(base_url=served.url) as leaving, leaving.stream("POST", place, json=body) as reading:
            lines = reading.iter_lines()
            next(lines)
            assert asked.wait(PATIENCE_SECONDS)
        sessions = served.services.store.sessions
        while (turn := sessions.turns(one.session_id)[0]).status == "running":
            pass
        released.set()
    assert (turn.status, [step["step_type"] for step in turn.steps]) == ("failed", ["inference"])
    assert one.say("hello").output_message.content == "a fine answer"
    assert [message["content"] for message in called(script)] == ["This call was never answered."]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"toolgroups": ["calculater"]}, "toolgroups.0: no tool group 'calculater'; did you mean 'calculator'?"),
        ({"toolgroups": ["calculator/add"]}, "'calculator' has no tool 'add'; known are calculator"),
        (
            {"toolgroups": [{"name": "calculator", "args": {"x": 1}}]},
            "args.x: no tool of it takes that; known are",
        ),
        ({"toolgroups": ["calculator", "calculator"]}, "its tool 'calculator' is in calculator too"),
        ({"toolgroups": ["calculator"], "client_tools": [{"name": "calculator"}]}, "is in client_tools too"),
        ({"toolgroups": ["mcp"]}, "leaves provider.url open"),
        ({"toolgroups": ["bad"]}, "unknown key; did you mean provider.entry_points?"),
        ({"toolgroups": ["calculator"], "tool_config": {"tool_choice": "add"}}, "found 'add', allowed: auto, required"),
    ],
)
def test_groups_that_cannot_be_used_are_refused_when_the_agent_is_made(
    served: Served, script: Scripted, config: dict[str, Any], told: str
) -> None:
    group("bad", type="python", entry_point=["calculator"])
    with pytest.raises(BadRequestError) as refused:
        talk(served, script, **config)
    assert told in str(refused.value)


def test_a_group_whose_server_is_down_is_told_at_once(served: Served, script: Scripted) -> None:
    group("down", type="mcp", url="http://127.0.0.1:9/mcp")
    with pytest.raises(InternalServerError, match=r"tool group down: the MCP server .* does not answer") as refused:
        talk(served, script, toolgroups=["down"])
    assert refused.value.status_code == 503
