"""Turns at endpoints that differ from the protocol, or are strict about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.conftest import Served
from tests.api.talks import ADD, ANSWERS, answer, talk
from tests.scripted import Answer, Scripted


def test_a_whole_answer_to_a_streamed_request_is_used(served: Served, script: Scripted) -> None:
    choice = {"index": 0, "message": {"content": "whole", "reasoning": "hm"}, "finish_reason": "stop"}
    ANSWERS["whole"] = Answer(body={"choices": [choice]})
    ANSWERS["refuse"] = Answer(body={"error": {"message": "context length exceeded", "code": 400}})
    one = talk(served, script)
    turn = one.say("whole")
    assert turn.output_message.content == "whole"
    assert turn.steps[0].reasoning_content == "hm"
    *_, last = one.say("refuse", stream=True)
    assert "context length exceeded" in last.error["message"]
    one.say("hello")
    assert [message["content"] for message in script.sent[-1]["messages"]][1:] == ["whole", "whole", "hello"]


@pytest.mark.parametrize("arguments", ['{"x": 1', "[1]", "nonsense"])
def test_broken_arguments_and_empty_answers_go_back_as_strict_servers_take_them(
    served: Served, script: Scripted, arguments: str
) -> None:
    ANSWERS["break"] = Answer(calls=[("add", arguments)])
    ANSWERS["nothing"] = Answer("")
    one = talk(served, script, client_tools=[ADD])
    one.say("break")
    call, told = script.sent[-1]["messages"][-2:]
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {}
    assert told["content"].startswith("Error: ")
    one.say("nothing")
    one.say("hello")
    assert script.sent[-1]["messages"][-2] == {"role": "assistant", "content": "[no answer]"}


def test_names_that_are_refused_are_mapped_and_mapped_back(served: Served, script: Scripted) -> None:
    names = ["get-weather.v2/today", "get-weather_v2_today", "x" * 80]
    tools: list[dict[str, Any]] = [{**ADD, "name": name} for name in names]
    one = talk(served, script, client_tools=tools)
    one.say("hello")
    sent = [tool["function"]["name"] for tool in script.sent[-1]["tools"]]
    assert len(set(sent)) == 3
    assert sent[1] == names[1]
    assert all(len(name) <= 64 and name.replace("-", "_").isidentifier() for name in sent)
    ANSWERS["call"] = Answer(calls=[(name, '{"x": 1}') for name in sent])
    turn = one.say("call")
    calls = turn.output_message.tool_calls
    assert [call.tool_name for call in calls] == names
    assert one.resume(turn.turn_id, [answer(call) for call in calls]).output_message.content == "it is 42"
