"""Turns at endpoints that keep to the protocol in ways of their own: what they mean is what the agent does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llsflow.agents.service import AgentsService
from llsflow.errors import UnavailableError
from llsflow.schema.agents import AgentConfig, CreateAgentTurnRequest, ResumeAgentTurnRequest
from llsflow.schema.models import ModelConfig
from llsflow.store import Store
from tests.scripted import Answer, Scripted, scripted

TOOLS = [
    {"name": name, "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}
    for name in ("add", "mul")
]


def sse(*deltas: Any, finish: str | None = "stop", done: bool = True) -> Answer:
    """Return an answer in these deltas of choice 0, its end, and [DONE]."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if finish:
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    return Answer(events="".join([*lines, "data: [DONE]\n\n" if done else ""]).encode())


def part(index: Any = 0, call_id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    """Return a part of a call, without what is None."""
    function = {"name": name, "arguments": arguments}
    whole = {"index": index, "id": call_id, "function": {k: v for k, v in function.items() if v is not None}}
    return {"tool_calls": [{k: v for k, v in whole.items() if v is not None or k == "index"}]}


def talk(script: Scripted, *said: str, tools: Sequence[dict[str, Any]] = TOOLS, answer: str = "1") -> list[Any]:
    """Return the last event of each turn of one session; calls are answered."""

    async def turns(agents: AgentsService) -> list[Any]:
        try:
            return await several(agents)
        finally:
            await agents.close()

    async def several(agents: AgentsService) -> list[Any]:
        config = AgentConfig.model_validate({"model": "m", "instructions": "", "client_tools": list(tools)})
        agent_id = await agents.create(config)
        session_id = agents.begin_session(agent_id, "s")
        ended = []
        for text in said:
            begin = CreateAgentTurnRequest.model_validate({"messages": [{"role": "user", "content": text}]})
            *_, event = [event async for event in await agents.begin_turn(agent_id, session_id, begin)]
            if event.event_type == "turn_awaiting_input":
                given = [
                    {"call_id": call.call_id, "tool_name": str(call.tool_name), "content": answer}
                    for call in event.turn.output_message.tool_calls
                ]
                resume = ResumeAgentTurnRequest.model_validate({"tool_responses": given})
                stream = await agents.resume_turn(agent_id, session_id, event.turn.turn_id, resume)
                *_, event = [event async for event in stream]
            ended.append(event)
        return ended

    endpoint = {"base_url": script.url, "retries": 0}
    model = ModelConfig.model_validate({"model_id": "m", "endpoint": endpoint})
    with Store.open() as store:
        return asyncio.run(turns(AgentsService(store, lambda _: model, str)))


def steps(event: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and arguments of a turn's calls."""
    return [
        (str(call.tool_name), json.loads(call.arguments))
        for step in event.turn.steps
        if step.step_type == "inference"
        for call in step.model_response.tool_calls or ()
    ]


ADD, MUL = ("add", {"x": 1}), ("mul", {"x": 2})


@pytest.mark.parametrize(
    ("parts", "calls"),
    [
        (
            [
                part(0, "a", "add"),
                part(0, None, None, '{"x": 1}'),
                part(0, "b", "mul"),
                part(0, None, None, '{"x": 2}'),
            ],
            [ADD, MUL],
        ),
        ([part(None, "a", "add", '{"x": 1}'), part(None, "b", "mul", '{"x": 2}')], [ADD, MUL]),
        ([part(0, None, "add", '{"x": 1}'), part(0, None, "mul", '{"x": 2}')], [ADD, MUL]),
        ([part(0, "a", "add", '{"x"'), part(0, "a", "add", ": 1}")], [ADD]),
        ([part(0, "same", "add", '{"x": 1}'), part(1, "same", "mul", '{"x": 2}')], [ADD, MUL]),
        ([part(0, "a", "add", '{"x": 1}'), part(0, "a", "add", '{"x": 1}')], [ADD]),
    ],
    ids=["one index", "no index", "no id", "name repeated", "one id", "call repeated"],
)
def test_calls_in_parts_are_the_calls_that_were_meant(parts: list[Any], calls: list[Any], llsflow_home: Path) -> None:
    with scripted(lambda _, number: sse(*parts, finish="tool_calls") if number == 0 else "done") as script:
        (ended,) = talk(script, "go")
    assert ended.event_type == "turn_complete"
    assert steps(ended) == calls
    sent = script.sent[-1]["messages"]
    ids = [call["id"] for message in sent for call in message.get("tool_calls") or ()]
    assert len(set(ids)) == len(calls)
    assert [message["tool_call_id"] for message in sent if message["role"] == "tool"] == ids


@pytest.mark.parametrize("arguments", ['{"x": ', "", "no", "[1]", '{"x": NaN}'])
def test_broken_arguments_go_back_as_an_object_and_the_model_hears_of_them(arguments: str, llsflow_home: Path) -> None:
    with scripted(lambda _, number: Answer(calls=[("add", arguments)]) if number == 0 else "hello") as script:
        talk(script, "go", "hello")
    for body in script.sent[1:]:
        for message in body["messages"]:
            for call in message.get("tool_calls") or ():
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
    (told,) = [message["content"] for message in script.sent[1]["messages"] if message["role"] == "tool"]
    assert told.startswith("Error") or (told == "1" and not arguments)


def test_an_empty_answer_does_not_end_the_session(llsflow_home: Path) -> None:
    with scripted(lambda _, number: "" if number == 0 else "hi") as script:
        _, second = talk(script, "say nothing", "say hi")
    assert second.turn.output_message.content == "hi"
    said = [message for message in script.sent[1]["messages"] if message["role"] == "assistant"]
    assert all(message["content"] or message.get("tool_calls") for message in said)


def test_an_error_with_the_status_200_is_told_and_a_whole_completion_is_used(llsflow_home: Path) -> None:
    failure = {"error": {"message": "Provider returned error: context length exceeded"}}
    with (
        scripted(lambda *_: Answer(body=failure)) as script,
        pytest.raises(UnavailableError, match="Provider returned error: context length exceeded"),
    ):
        talk(script, "go")
    message = {"role": "assistant", "content": "whole answer"}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    with scripted(lambda *_: Answer(body=whole)) as script:
        (ended,) = talk(script, "go")
    assert ended.turn.output_message.content == "whole answer"


def test_a_stream_without_an_end_was_broken_off(llsflow_home: Path) -> None:
    cut = sse({"content": "The capital of France is"}, finish=None, done=False)
    with (
        scripted(lambda *_: cut) as script,
        pytest.raises(UnavailableError, match="broke off in the middle of its answer"),
    ):
        talk(script, "go")


@pytest.mark.parametrize(("finish", "reason"), [("stop", "end_of_turn"), ("length", "out_of_tokens")])
def test_a_last_event_without_a_newline_counts(finish: str, reason: str, llsflow_home: Path) -> None:
    first = sse({"content": "first "}, finish=None, done=False).events
    last = json.dumps({"choices": [{"index": 0, "delta": {"content": "last"}, "finish_reason": finish}]})
    assert first is not None
    with scripted(lambda *_: Answer(events=first + f"data: {last}".encode())) as script:
        (ended,) = talk(script, "go")
    assert (ended.turn.output_message.content, ended.turn.output_message.stop_reason) == ("first last", reason)


def test_content_in_parts_is_text_and_reasoning_is_apart(llsflow_home: Path) -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "42"}]
    other = {"choices": [{"index": 1, "delta": {"content": "another choice"}, "finish_reason": None}]}
    streamed = sse({"content": parts}).events
    assert streamed is not None
    with scripted(lambda *_: Answer(events=f"data: {json.dumps(other)}\n\n".encode() + streamed)) as script:
        (ended,) = talk(script, "go")
    assert ended.turn.output_message.content == "42"
    assert ended.turn.steps[0].reasoning_content == "hm"
    for name in ("reasoning_content", "reasoning", "thinking"):
        with scripted(lambda *_, name=name: sse({name: "hm"}, {"content": "42"})) as script:  # type: ignore[misc]
            (ended,) = talk(script, "go")
        assert (ended.turn.output_message.content, ended.turn.steps[0].reasoning_content) == ("42", "hm")


def test_names_that_endpoints_refuse_are_mapped_and_mapped_back(llsflow_home: Path) -> None:
    names = ["get-weather.v2/today", "get-weather_v2_today", "x" * 80]
    tools = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]

    def say(body: dict[str, Any], number: int) -> Any:
        sent = [tool["function"]["name"] for tool in body["tools"]]
        return Answer(calls=[(name, "{}") for name in sent]) if number == 0 else "done"

    with scripted(say) as script:
        (ended,) = talk(script, "go", tools=tools)
    sent = [tool["function"]["name"] for tool in script.sent[0]["tools"]]
    assert len(set(sent)) == 3
    assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in sent)
    assert [name for name, _ in steps(ended)] == names
    assert ended.event_type == "turn_complete"
