"""Agents with the official client: made, talked to streamed and not, answering by the caller's tools, remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_stack_client import BadRequestError, ConflictError, NotFoundError
from sqlalchemy import func, select

from llsflow.store.tables import agent_sessions, agent_steps, agent_turns
from llsflow.store.tables import agents as agents_table
from tests.api.conftest import Served
from tests.api.errors import assert_error
from tests.api.talks import ADD, ANSWERS, CALL, Talk, answer, kinds, talk
from tests.scripted import Answer, Scripted


def test_agents_are_made_listed_and_removed(served: Served, script: Scripted) -> None:
    agents: Any = served.client.alpha.agents
    made = [Talk(served.client, name=f"agent {number}") for number in range(3)]
    page = agents.list(limit=2)
    assert [one["agent_id"] for one in page.data] == [one.agent_id for one in made[:2]]
    assert page.has_more
    rest = served.http.get(page.url).json()
    assert [one["agent_id"] for one in rest["data"]] == [made[2].agent_id]
    assert (rest["has_more"], rest["url"]) == (False, None)
    found = agents.retrieve(made[0].agent_id)
    assert (found.agent_config.name, found.agent_config.model) == ("agent 0", "there")
    agents.delete(made[0].agent_id)
    for gone in (
        lambda: agents.retrieve(made[0].agent_id),
        lambda: agents.delete(made[0].agent_id),
        lambda: made[0].session,
        lambda: made[0].say("hello"),
    ):
        with pytest.raises(NotFoundError):
            gone()


def test_files_of_conf_are_agents_by_their_names(served: Served, script: Scripted) -> None:
    folder = Path("conf/agent")
    folder.mkdir()
    (folder / "helper.yaml").write_text("model: there\ninstructions: Be kind.\ntoolgroups: [calculator]\n")
    (folder / "open.yaml").write_text("model: ???\ninstructions: ''\n")
    made = talk(served, script)
    agents: Any = served.client.alpha.agents
    assert [one["agent_id"] for one in agents.list().data] == ["helper", made.agent_id]
    assert [one["agent_id"] for one in agents.list(limit=1).data] == ["helper"]
    assert [one["agent_id"] for one in agents.list(start_index=1, limit=5).data] == [made.agent_id]
    assert agents.retrieve("helper").agent_config.instructions == "Be kind."
    session_id = agents.session.create("helper", session_name="s").session_id
    said = [{"role": "user", "content": "hello"}]
    turn = agents.turn.create(session_id, agent_id="helper", messages=said)
    assert turn.output_message.content == "a fine answer"
    assert script.sent[-1]["messages"][0]["content"] == "Be kind."
    with pytest.raises(ConflictError, match="is a file of conf/agent: remove the file"):
        agents.delete("helper")
    with pytest.raises(BadRequestError, match="leaves model open"):
        agents.retrieve("open")


def test_nothing_is_left_of_an_agent_that_is_removed(served: Served, script: Scripted) -> None:
    one = talk(served, script, enable_session_persistence=True, client_tools=[ADD])
    one.say("hello")
    one.say("please add")
    one.agents.delete(one.agent_id)
    with served.services.store._database.read() as connection:
        for table in (agents_table, agent_sessions, agent_turns, agent_steps):
            assert connection.execute(select(func.count()).select_from(table)).scalar() == 0, table.name


def test_the_events_of_a_turn(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    payloads = one.stream("hello")
    begin, start, *progress, complete, end = payloads
    assert kinds([begin, start, complete, end]) == ["turn_start", "step_start", "step_complete", "turn_complete"]
    assert kinds(progress) == ["step_progress"] * 3
    assert "".join(one.delta.text for one in progress) == "a fine answer"
    step = complete.step_details
    assert {payload.step_id for payload in (start, complete, step, *progress)} == {start.step_id}
    assert (start.step_type, start.metadata) == ("inference", {})
    said = step.api_model_response
    assert (said.content, said.stop_reason) == ("a fine answer", "end_of_turn")
    turn = end.turn
    assert begin.turn_id == turn.turn_id == step.turn_id
    assert turn.session_id == one.session_id
    assert [message.content for message in turn.input_messages] == ["hello"]
    assert turn.output_message.content == "a fine answer"
    assert turn.steps == [step]
    assert turn.started_at <= step.started_at <= step.completed_at <= turn.completed_at
    assert one.agents.turn.retrieve(turn.turn_id, agent_id=one.agent_id, session_id=one.session_id) == turn
    found = one.agents.steps.retrieve(
        step.step_id, agent_id=one.agent_id, session_id=one.session_id, turn_id=turn.turn_id
    )
    assert found.step == step


def test_the_wire_is_events_of_compact_json_without_an_end_mark(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
    answer = served.http.post(f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}/turn", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, end = answer.text.split("\n\n")
    assert end == ""
    assert all(event.startswith('data: {"event":{"payload":{"event_type":"') for event in events)
    assert all(json.loads(event.removeprefix("data: ")) for event in events)


def test_an_unstreamed_turn_is_the_whole_turn(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    turn = one.say("hello")
    assert turn.output_message.content == "a fine answer"
    assert one.session.turns == [turn]


def test_what_was_said_before_goes_along_in_order(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    for text in ("first", "second", "third"):
        one.say(text)
    said = [(message["role"], message["content"]) for message in script.sent[-1]["messages"]]
    assert said == [
        ("system", "Be brief."),
        *(("user", "first"), ("assistant", "a fine answer")),
        *(("user", "second"), ("assistant", "a fine answer")),
        ("user", "third"),
    ]
    names = [turn.turn_id for turn in one.session.turns]
    some = one.agents.session.retrieve(one.session_id, agent_id=one.agent_id, turn_ids=[names[2], names[0]])
    assert [turn.turn_id for turn in some.turns] == [names[0], names[2]]


def test_the_context_of_a_message_goes_with_its_own_turn_only(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    said = {"role": "user", "content": "hello", "context": "it is Monday"}
    one.agents.turn.create(one.session_id, agent_id=one.agent_id, messages=[said])
    assert script.sent[-1]["messages"][-1]["content"] == "hello\n\nit is Monday"
    one.say("again")
    assert [message["content"] for message in script.sent[-1]["messages"]][1] == "hello"


@pytest.mark.parametrize("stream", [True, False])
def test_the_callers_tool_pauses_the_turn_until_it_is_answered(served: Served, script: Scripted, stream: bool) -> None:
    one = talk(served, script, client_tools=[ADD])
    if stream:
        payloads = one.stream("please add")
        assert kinds(payloads)[-2:] == ["step_complete", "turn_awaiting_input"]
        deltas = [payload.delta for payload in payloads if payload.event_type == "step_progress"]
        assert [(delta.parse_status, delta.tool_call) for delta in deltas[:2]] == [
            ("in_progress", "add"),
            ("in_progress", '{"x": 41}'),
        ]
        assert deltas[2].parse_status == "succeeded"
        assert deltas[2].tool_call.arguments == '{"x": 41}'
        turn = payloads[-1].turn
    else:
        turn = one.say("please add")
    (call,) = turn.output_message.tool_calls
    assert turn.output_message.stop_reason == "end_of_message"
    assert (call.tool_name, json.loads(call.arguments)) == ("add", {"x": 41})
    assert script.sent[-1]["tools"][0]["function"]["name"] == "add"
    if stream:
        payloads = [chunk.event.payload for chunk in one.resume(turn.turn_id, [answer(call)], stream=True)]
        assert kinds(payloads)[:3] == ["turn_start", "step_complete", "step_start"]
        assert payloads[1].step_type == "tool_execution"
        assert kinds(payloads)[-1] == "turn_complete"
        resumed = payloads[-1].turn
    else:
        resumed = one.resume(turn.turn_id, [answer(call)])
    assert (resumed.turn_id, resumed.started_at) == (turn.turn_id, turn.started_at)
    assert [step.step_type for step in resumed.steps] == ["inference", "tool_execution", "inference"]
    assert resumed.output_message.content == "it is 42"
    *_, asked, told = script.sent[-1]["messages"]
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == call.call_id
    assert told["content"] == "42"


def test_answers_that_are_not_those_that_are_waited_for(served: Served, script: Scripted) -> None:
    one = talk(served, script, client_tools=[ADD])
    turn = one.say("please add")
    (call,) = turn.output_message.tool_calls
    for responses, told in (
        ([], "call_0 is not answered"),
        ([{**answer(call), "call_id": "other"}], "'other' is no call of this turn"),
        ([answer(call), answer(call)], "'call_0' is answered twice"),
        ([{**answer(call), "tool_name": "subtract"}], "allowed: 'add'"),
    ):
        with pytest.raises(BadRequestError, match=told):
            one.resume(turn.turn_id, responses)
    with pytest.raises(NotFoundError, match="no turn 'other'"):
        one.resume("other", [answer(call)])
    one.resume(turn.turn_id, [answer(call)])
    with pytest.raises(BadRequestError, match="'call_0' was answered already"):
        one.resume(turn.turn_id, [answer(call)])


def test_a_completed_turn_goes_on_with_calls_that_the_caller_read_from_its_text(
    served: Served, script: Scripted
) -> None:
    ANSWERS["think"] = "Action: add(41)"
    ANSWERS["Observation: 42"] = "so it is 42"
    one = talk(served, script)
    turn = one.say("think")
    told = {"call_id": "mine", "tool_name": "add", "content": "Observation: 42"}
    resumed = one.resume(turn.turn_id, [told])
    assert resumed.output_message.content == "so it is 42"
    assert [step.step_type for step in resumed.steps] == ["inference", "tool_execution", "inference"]
    assert [message["role"] for message in script.sent[-1]["messages"]] == ["system", "user", "assistant", "user"]
    with pytest.raises(BadRequestError, match="'mine' was answered already"):
        one.resume(turn.turn_id, [told])
    with pytest.raises(BadRequestError, match="is empty"):
        one.resume(turn.turn_id, [])


def test_a_turn_that_is_left_waiting_does_not_trouble_the_next(served: Served, script: Scripted) -> None:
    one = talk(served, script, client_tools=[ADD])
    one.say("please add")
    one.say("never mind")
    roles = [message["role"] for message in script.sent[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert script.sent[-1]["messages"][3]["content"] == "This call was never answered."


def test_a_call_that_nobody_can_run_is_told_to_the_model(served: Served, script: Scripted) -> None:
    ANSWERS["try the wrong one"] = Answer(calls=[("subtract", "{}")])
    one = talk(served, script, client_tools=[ADD])
    turn = one.say("try the wrong one")
    assert turn.output_message.content == "it is 42"
    assert script.sent[-1]["messages"][-1]["content"] == "Error: there is no function 'subtract'; known are add"


def test_required_is_required_once(served: Served, script: Scripted) -> None:
    one = talk(served, script, client_tools=[ADD], tool_config={"tool_choice": "required"})
    turn = one.say("please add")
    assert script.sent[-1]["tool_choice"] == "required"
    one.resume(turn.turn_id, [answer(turn.output_message.tool_calls[0])])
    assert "tool_choice" not in script.sent[-1]
    one.say("hello", tool_config={"tool_choice": "none"})
    assert "tools" not in script.sent[-1]


def test_the_limit_of_generations_counts_across_resumptions(served: Served, script: Scripted) -> None:
    ANSWERS["once more"] = CALL
    one = talk(served, script, client_tools=[ADD], max_infer_iters=2)
    turn = one.say("please add")
    ended = one.resume(turn.turn_id, [answer(turn.output_message.tool_calls[0], "once more")])
    assert ended.output_message.stop_reason == "end_of_turn"
    assert len(script.sent) == 2
    with pytest.raises(ConflictError, match="waits for no answers"):
        one.resume(turn.turn_id, [answer(turn.output_message.tool_calls[0])])


FORMATS = {
    "json": '{"name": "add", "parameters": {"x": 41}}',
    "function_tag": '<function=add>{"x": 41}</function>',
    "python_list": "[add(x=41)]",
}


@pytest.mark.parametrize("form", FORMATS)
def test_calls_written_as_text(served: Served, script: Scripted, form: str) -> None:
    ANSWERS["by text"] = FORMATS[form]
    one = talk(served, script, client_tools=[ADD], tool_config={"tool_prompt_format": form})
    payloads = one.stream("by text")
    texts = [payload.delta for payload in payloads if payload.event_type == "step_progress"]
    assert {delta.type for delta in texts} == {"tool_call"}, "a call is not told as an answer"
    turn = payloads[-1].turn
    (call,) = turn.output_message.tool_calls
    assert (call.tool_name, json.loads(call.arguments)) == ("add", {"x": 41})
    assert "tools" not in script.sent[-1]
    assert '"name": "add"' in script.sent[-1]["messages"][0]["content"]
    assert one.resume(turn.turn_id, [answer(call)]).output_message.content == "it is 42"
    assert script.sent[-1]["messages"][-2]["content"] == FORMATS[form]


def test_a_call_that_cannot_be_read_is_told_to_the_model(served: Served, script: Scripted) -> None:
    ANSWERS["break off"] = '{"name": "add", "parameters": {"x": '
    one = talk(served, script, client_tools=[ADD], tool_config={"tool_prompt_format": "json"})
    turn = one.say("break off")
    assert turn.output_message.content == "it is 42"
    told = script.sent[-1]["messages"][-1]
    assert told["role"] == "tool"
    assert told["content"].startswith("Error: this function call cannot be read")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model": "nope"}, "no model 'nope'"),
        ({"model": "bm25"}, "ranks and writes no text"),
        ({"toolgroups": ["nope"]}, "agent_config.toolgroups.0: no tool group 'nope'; known are builtin::"),
        ({"client_tools": [ADD, ADD]}, "'add' is there twice"),
        ({"tool_config": {"tool_choice": "add"}}, "found 'add', allowed: auto, required, none"),
        ({"tool_config": {"tool_choice": "required"}}, "the agent has no tools"),
        ({"tool_choice": "none", "tool_config": {}}, "tool_choice: is none, and tool_config says auto: leave it out"),
        ({"max_infer_iters": 0}, "max_infer_iters"),
    ],
)
def test_what_cannot_be_done_is_refused_when_the_agent_is_made(
    served: Served, script: Scripted, config: dict[str, Any], told: str
) -> None:
    given = {"model": "there", "instructions": "", **config}
    answer = served.http.post("/v1alpha/agents", json={"agent_config": given})
    assert_error(answer, 404 if config == {"model": "nope"} else 400, told)
    assert served.http.get("/v1alpha/agents").json()["data"] == []


def test_literal_forms_of_the_specification(served: Served, script: Scripted) -> None:
    http = served.http
    bare = {"model": "there", "instructions": "", "client_tools": [ADD]}
    agent_id = http.post("/v1alpha/agents", json=bare).json()["agent_id"]
    place = f"/v1alpha/agents/{agent_id}/session"
    session_id = http.post(f"{place}?session_name=sums").json()["session_id"]
    said = {"messages": [{"role": "user", "content": "please add"}]}
    turn = http.post(f"{place}/{session_id}/turn?stream=false", json=said).json()
    (call,) = turn["output_message"]["tool_calls"]
    one = {"call_id": call["call_id"], "tool_name": "add", "content": "42"}
    ended = http.post(f"{place}/{session_id}/turn/{turn['turn_id']}/resume", json=one).json()
    assert ended["output_message"]["content"] == "it is 42"
    old = http.get(f"/v1/agents/{agent_id}").json()
    assert old["agent_id"] == agent_id


def test_a_model_that_fails_is_told_within_the_stream_and_the_turn_is_kept(served: Served, script: Scripted) -> None:
    ANSWERS["fail"] = Answer("out of order", status=500)
    one = talk(served, script, enable_session_persistence=True)
    *_, last = one.say("fail", stream=True)
    assert last.event is None
    assert last.error["message"] == f"503: endpoint {script.url} does not answer: out of order"
    body = {"messages": [{"role": "user", "content": "fail"}]}
    place = f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}/turn"
    assert_error(served.http.post(place, json=body), 503, "out of order")
    assert [turn.status for turn in served.services.store.sessions.turns(one.session_id)] == ["failed", "failed"]
    assert [turn.error for turn in one.session.turns] == [f"endpoint {script.url} does not answer: out of order"] * 2
    one.say("hello")
    assert [message["content"] for message in script.sent[-1]["messages"]] == ["Be brief.", "hello"]


def test_a_request_that_the_model_refuses_is_the_callers_to_mend(served: Served, script: Scripted) -> None:
    ANSWERS["much"] = Answer("its prompt of 816 tokens: the model's context is 256", status=400)
    one = talk(served, script)
    *_, last = one.say("much", stream=True)
    assert last.error["message"] == f"400: {ANSWERS['much'].text}"
    with pytest.raises(BadRequestError, match="816 tokens: the model's context is 256"):
        one.say("much")
    assert [turn.error for turn in one.session.turns] == [ANSWERS["much"].text] * 2
