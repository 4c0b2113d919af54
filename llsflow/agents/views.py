"""Stored agents, sessions and turns as the API tells them."""

from __future__ import annotations

from collections.abc import Sequence

from llsflow.agents.history import input_messages, steps_of
from llsflow.schema.agents import Agent, AgentConfig, Session, Turn
from llsflow.schema.inference import CompletionMessage, StopReason
from llsflow.store import StoredAgent, StoredSession, StoredTurn

NOTHING = CompletionMessage(content="", stop_reason=StopReason.END_OF_TURN, tool_calls=[])
"""The output of a turn that failed before it had any."""


def agent_view(agent: StoredAgent) -> Agent:
    """Return an agent."""
    config = AgentConfig.model_validate(agent.config)
    return Agent(agent_id=agent.agent_id, agent_config=config, created_at=agent.created_at)


def session_view(session: StoredSession, turns: Sequence[StoredTurn] = ()) -> Session:
    """Return a session with these turns."""
    return Session(
        session_id=session.session_id,
        session_name=session.session_name,
        turns=[turn_view(turn) for turn in turns],
        started_at=session.started_at,
    )


def turn_view(turn: StoredTurn) -> Turn:
    """Return a turn."""
    return Turn(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        input_messages=input_messages(turn),
        steps=steps_of(turn),
        output_message=CompletionMessage.model_validate(turn.output_message) if turn.output_message else NOTHING,
        output_attachments=[],
        started_at=turn.started_at,
        completed_at=turn.completed_at,
        error=turn.error,
    )
