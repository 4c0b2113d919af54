"""Agents: published as they will be, and not available yet."""
# ruff: noqa: ARG001 - what a path names is published, and nothing reads it yet

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter

from llsflow.api.openapi import published
from llsflow.errors import NotFoundError

router = APIRouter()

AGENT = "/v1alpha/agents/{agent_id}"
SESSION = f"{AGENT}/session/{{session_id}}"
TURN = f"{SESSION}/turn/{{turn_id}}"
CHUNK = "AgentTurnResponseStreamChunk"

PAGE = {
    "start_index": {"type": "integer", "minimum": 0, "default": 0, "description": "Index of the first, from 0."},
    "limit": {"type": "integer", "minimum": 1, "description": "At most so many; none: all."},
}
TURN_IDS = {
    "turn_ids": {"type": "array", "items": {"type": "string"}, "description": "Only these turns; none: all."},
}


def _not_yet() -> NoReturn:
    raise NotFoundError("agents are not available yet: data sets, benchmarks, training and evaluation are")


@router.get("/v1alpha/agents", **published("PaginatedResponse", query=PAGE, says="A page of agents."))
def list_agents() -> None:
    """List the agents."""
    _not_yet()


@router.post(
    "/v1alpha/agents", **published("AgentCreateResponse", takes="CreateAgentRequest", says="The new agent's id.")
)
def create_agent() -> None:
    """Make an agent."""
    _not_yet()


@router.get(AGENT, **published("Agent", says="The agent."))
def get_agent(agent_id: str) -> None:
    """Return an agent."""
    _not_yet()


@router.delete(AGENT, **published(status=204, says="It is gone."))
def delete_agent(agent_id: str) -> None:
    """Remove an agent with its sessions."""
    _not_yet()


@router.post(
    f"{AGENT}/session",
    **published("AgentSessionCreateResponse", takes="CreateAgentSessionRequest", says="The new session's id."),
)
def create_agent_session(agent_id: str) -> None:
    """Begin a session with an agent."""
    _not_yet()


@router.get(f"{AGENT}/sessions", **published("PaginatedResponse", query=PAGE, says="A page of sessions."))
def list_agent_sessions(agent_id: str) -> None:
    """List the sessions of an agent."""
    _not_yet()


@router.get(SESSION, **published("Session", query=TURN_IDS, says="The session."))
def get_agents_session(agent_id: str, session_id: str) -> None:
    """Return a session with its turns."""
    _not_yet()


@router.delete(SESSION, **published(status=204, says="It is gone."))
def delete_agents_session(agent_id: str, session_id: str) -> None:
    """Remove a session with its turns."""
    _not_yet()


@router.post(
    f"{SESSION}/turn",
    **published("Turn", takes="CreateAgentTurnRequest", events=CHUNK, says="The turn, or its events as they come."),
)
def create_agent_turn(agent_id: str, session_id: str) -> None:
    """Say something to the agent, and have it answer."""
    _not_yet()


@router.get(TURN, **published("Turn", says="The turn."))
def get_agents_turn(agent_id: str, session_id: str, turn_id: str) -> None:
    """Return a turn."""
    _not_yet()


@router.post(
    f"{TURN}/resume",
    **published("Turn", takes="ResumeAgentTurnRequest", events=CHUNK, says="The turn, or its events as they come."),
)
def resume_agent_turn(agent_id: str, session_id: str, turn_id: str) -> None:
    """Go on with a turn that waits for the caller's tools."""
    _not_yet()


@router.get(f"{TURN}/step/{{step_id}}", **published("AgentStepResponse", says="The step."))
def get_agents_step(agent_id: str, session_id: str, turn_id: str, step_id: str) -> None:
    """Return one step of a turn."""
    _not_yet()
