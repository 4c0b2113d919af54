"""Stored agents, sessions and turns as the API tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llsflow.agents.content import mime_type_of
from llsflow.schema.agents import Agent, AgentConfig, Turn
from llsflow.schema.inference import CompletionMessage, ImageContentItem, StopReason
from llsflow.store import StoredAgent, StoredSession, StoredTurn

NOTHING = CompletionMessage(content="", stop_reason=StopReason.END_OF_TURN, tool_calls=[]).model_dump(mode="json")
"""The output of a turn that failed before it had any."""


def agent_view(agent: StoredAgent) -> Agent:
    """Return an agent."""
    config = AgentConfig.model_validate(agent.config)
    return Agent(agent_id=agent.agent_id, agent_config=config, created_at=agent.created_at)


def session_record(session: StoredSession, turns: Sequence[StoredTurn] = ()) -> dict[str, Any]:
    """Return what a Session with these turns is written as.

    Steps are as they were stored: to check a long session again would take longer than to read it.
    """
    return {
        "session_id": session.session_id,
        "session_name": session.session_name,
        "turns": [turn_record(turn) for turn in turns],
        "started_at": session.started_at,
    }


def turn_view(turn: StoredTurn) -> Turn:
    """Return a turn."""
    return Turn.model_validate(turn_record(turn), extra="ignore")


def turn_record(turn: StoredTurn) -> dict[str, Any]:
    """Return what a Turn is written as."""
    return {
        "turn_id": turn.turn_id,
        "session_id": turn.session_id,
        "input_messages": turn.request["messages"],
        "steps": turn.steps,
        "output_message": turn.output_message or NOTHING,
        "output_attachments": [_attachment(image) for step in turn.steps for image in _images(step)],
        "started_at": turn.started_at,
        "completed_at": turn.completed_at,
        "error": turn.error,
    }


def _images(step: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the images that tools have made."""
    for response in step.get("tool_responses", ()):
        content = response["content"]
        for item in content if isinstance(content, list) else [content]:
            if isinstance(item, dict) and item["type"] == "image":
                yield item


def _attachment(image: dict[str, Any]) -> dict[str, Any]:
    return {"content": image, "mime_type": mime_type_of(ImageContentItem.model_validate(image)) or "image/png"}
