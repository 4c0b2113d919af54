"""Talks with agents by the official client, whose model is a scripted endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama_stack_client import LlamaStackClient

from tests.scripted import Answer, Scripted

if TYPE_CHECKING:
    from tests.api.conftest import Served

ADD = {
    "name": "add",
    "description": "Adds two numbers.",
    "input_schema": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
}
CALL = Answer(calls=[("add", '{"x": 41}')])


def says(answers: dict[str, Any]) -> Callable[[dict[str, Any], int], Any]:
    """Return what answers by the last message: its text, or what its role is."""

    def say(body: dict[str, Any], _: int) -> Any:
        last = body["messages"][-1]
        return answers.get(str(last["content"]), answers.get(last["role"], "a fine answer"))

    return say


ANSWERS: dict[str, Any] = {"please add": CALL, "tool": "it is 42"}


class Talk:
    """An agent and a session with it."""

    def __init__(self, client: LlamaStackClient, **config: Any) -> None:
        self.agents: Any = client.alpha.agents
        self.agent_id = self.agents.create(
            agent_config={"model": "there", "instructions": "Be brief.", **config}
        ).agent_id
        self.session_id = self.agents.session.create(self.agent_id, session_name="sums").session_id

    def say(self, text: str, **more: Any) -> Any:
        return self.agents.turn.create(
            self.session_id, agent_id=self.agent_id, messages=[{"role": "user", "content": text}], **more
        )

    def stream(self, text: str, **more: Any) -> list[Any]:
        return [chunk.event.payload for chunk in self.say(text, stream=True, **more)]

    def resume(self, turn_id: str, responses: list[dict[str, Any]], **more: Any) -> Any:
        return self.agents.turn.resume(
            turn_id, agent_id=self.agent_id, session_id=self.session_id, tool_responses=responses, **more
        )

    @property
    def session(self) -> Any:
        return self.agents.session.retrieve(self.session_id, agent_id=self.agent_id)


def talk(served: Served, script: Scripted, **config: Any) -> Talk:
    assert script.url
    return Talk(served.client, **config)


def kinds(payloads: list[Any]) -> list[str]:
    return [payload.event_type for payload in payloads]


def answer(call: Any, content: str = "42") -> dict[str, Any]:
    """Return what answers a call."""
    return {"call_id": call.call_id, "tool_name": call.tool_name, "content": content}
