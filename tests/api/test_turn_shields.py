"""Shields in turns: what they stop is told and kept nowhere, and what they cannot look at does not go through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from llama_stack_client import BadRequestError, InternalServerError

from tests.api.conftest import Served
from tests.api.talks import ANSWERS, Talk, kinds, talk
from tests.scripted import Scripted

SECRET = "the password is swordfish"


def shield(shield_id: str, provider: dict[str, Any] | None = None, **more: Any) -> None:
    """Write a shield; by itself it looks for a password."""
    folder = Path("conf/shield")
    folder.mkdir(parents=True, exist_ok=True)
    of = provider or {"type": "patterns", "patterns": [{"pattern": "sword[a-z]+"}]}
    values = {"shield_id": shield_id, "provider": of, "user_message": "Not that.", **more}
    (folder / f"{shield_id}.yaml").write_text(yaml.safe_dump(values))


def guarded(served: Served, script: Scripted, **config: Any) -> Talk:
    return talk(served, script, enable_session_persistence=True, **config)


def test_the_events_of_shields_that_find_nothing(served: Served, script: Scripted) -> None:
    shield("s")
    one = guarded(served, script, input_shields=["s"], output_shields=["s"])
    payloads = one.stream("hello")
    assert kinds(payloads) == [
        "turn_start",
        *("step_start", "step_complete"),
        *("step_start", "step_progress", "step_progress", "step_progress", "step_complete"),
        *("step_start", "step_complete"),
        "turn_complete",
    ]
    before, after = payloads[1:3], payloads[8:10]
    for (start, complete), touchpoint in ((before, "user-input"), (after, "assistant-output")):
        assert {start.step_type, complete.step_type} == {"shield_call"}
        assert start.metadata == {"touchpoint": touchpoint}
        assert start.step_id == complete.step_id == complete.step_details.step_id
        assert complete.step_details.violation is None
    assert [step.step_type for step in payloads[-1].turn.steps] == ["shield_call", "inference", "shield_call"]


def test_what_comes_in_and_is_stopped_never_reaches_the_model(served: Served, script: Scripted) -> None:
    shield("s")
    one = guarded(served, script, input_shields=["s"])
    payloads = one.stream("is it swordfish?")
    assert kinds(payloads) == ["turn_start", "step_start", "step_complete", "turn_complete"]
    violation = payloads[2].step_details.violation
    assert (violation.violation_level, violation.user_message) == ("error", "Not that.")
    assert violation.metadata["shield_id"] == "s"
    turn = payloads[-1].turn
    assert (turn.output_message.content, turn.output_message.stop_reason) == ("Not that.", "end_of_turn")
    assert not script.sent
    # an old message that was stopped stops no later turn
    assert one.say("hello").output_message.content == "a fine answer"
    assert [message["content"] for message in script.sent[-1]["messages"]] == ["Be brief.", "hello"]


@pytest.mark.parametrize("document", [True, False])
def test_what_goes_with_a_message_is_looked_at_too(served: Served, script: Scripted, document: bool) -> None:
    shield("s")
    one = guarded(served, script, input_shields=["s"])
    if document:
        turn = one.say("hello", documents=[{"content": SECRET, "mime_type": "text/plain"}])
    else:
        said = {"role": "user", "content": "hello", "context": SECRET}
        turn = one.agents.turn.create(one.session_id, agent_id=one.agent_id, messages=[said])
    assert turn.output_message.content == "Not that."


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_stopped_is_told_and_kept_nowhere(served: Served, script: Scripted, stream: bool) -> None:
    ANSWERS["tell me"] = SECRET
    shield("s")
    one = guarded(served, script, output_shields=["s"])
    place = f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}"
    body = {"messages": [{"role": "user", "content": "tell me"}], "stream": stream}
    told = served.http.post(f"{place}/turn", json=body).text
    assert "swordfish" not in told
    assert "password" not in told
    assert "swordfish" not in served.http.get(place).text
    turn = one.session.turns[-1]
    assert [step.step_type for step in turn.steps] == ["inference", "shield_call"]
    assert turn.output_message.content == "Not that."
    assert turn.steps[1].violation.user_message == "Not that."
    if stream:
        events = [json.loads(line.removeprefix("data: "))["event"]["payload"] for line in told.split("\n\n") if line]
        assert [one["event_type"] for one in events] == [
            *("turn_start", "step_start", "step_complete"),
            *("step_start", "step_complete", "turn_complete"),
        ]
    one.say("hello")
    assert [message["content"] for message in script.sent[-1]["messages"]][1:] == ["tell me", "Not that.", "hello"]


def test_a_shield_that_does_not_hold_back_lets_the_answer_stream(served: Served, script: Scripted) -> None:
    ANSWERS["tell me"] = SECRET
    shield("s", hold_back=False)
    one = guarded(served, script, output_shields=["s"])
    payloads = one.stream("tell me")
    told = "".join(payload.delta.text for payload in payloads if payload.event_type == "step_progress")
    assert told == SECRET
    assert payloads[-1].turn.output_message.content == "Not that."
    assert "swordfish" not in json.dumps([turn.to_dict() for turn in one.session.turns], default=str)


@pytest.mark.parametrize("level", ["warn", "info"])
def test_only_an_error_stops_the_turn(served: Served, script: Scripted, level: str) -> None:
    shield("s", violation_level=level)
    one = guarded(served, script, input_shields=["s"])
    turn = one.say("is it swordfish?")
    assert turn.output_message.content == "a fine answer"
    assert turn.steps[0].violation.violation_level == level


def test_what_cannot_be_looked_at_does_not_go_through(served: Served, script: Scripted) -> None:
    ANSWERS["tell me"] = SECRET
    shield("down", {"type": "moderation", "base_url": "http://127.0.0.1:9/v1"})
    one = guarded(served, script, output_shields=["down"])
    with pytest.raises(InternalServerError, match="shield down"):
        one.say("tell me")
    (turn,) = one.session.turns
    assert (turn.steps, turn.output_message.content) == ([], "")
    assert "shield down" in turn.error


def test_a_model_judges(served: Served, script: Scripted) -> None:
    """One scripted model is both: what it is asked as a judge holds the categories."""

    def say(body: dict[str, Any], _: int) -> str:
        asked = str(body["messages"])
        if "S1" in asked and "unsafe" in asked:
            return "unsafe\nS1" if "harm" in asked.rpartition("BEGIN CONVERSATION")[2] else "safe"
        return "a fine answer"

    script.say = say
    shield("guard", {"type": "llama_guard", "model": "there"})
    one = guarded(served, script, input_shields=["guard"])
    assert one.say("hello").output_message.content == "a fine answer"
    stopped = one.say("do harm")
    assert stopped.output_message.content == "Not that."
    assert "S1" in str(stopped.steps[0].violation.metadata)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"input_shields": ["sekrets"]}, "agent_config.input_shields.0: no shield 'sekrets'; did you mean 'secrets'?"),
        ({"output_shields": ["bad"]}, "agent_config.output_shields.0"),
        ({"output_shields": ["moderation"]}, "leaves provider.base_url open"),
    ],
)
def test_shields_that_cannot_be_asked_are_refused_when_the_agent_is_made(
    served: Served, script: Scripted, config: dict[str, Any], told: str
) -> None:
    shield("bad", {"type": "patterns", "patterns": [{"pattern": "("}]})
    with pytest.raises(BadRequestError) as refused:
        guarded(served, script, **config)
    assert told in str(refused.value)
