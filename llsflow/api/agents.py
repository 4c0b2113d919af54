"""Agents: made, listed, looked at, removed; their sessions, and the turns and steps of these."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from llsflow.api.body import Body, ignore, taken, whole_body
from llsflow.api.deps import Server, done, reply, reply_plain
from llsflow.api.events import EventStream, event, whole
from llsflow.api.openapi import published
from llsflow.errors import NotFoundError
from llsflow.schema.agents import (
    AgentCreateResponse,
    AgentSessionCreateResponse,
    AgentStepResponse,
    CreateAgentRequest,
    CreateAgentSessionRequest,
    CreateAgentTurnRequest,
    ResumeAgentTurnRequest,
)
from llsflow.schema.base import NonNegativeInt, PositiveInt, Record
from llsflow.schema.pages import PaginatedResponse

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
READER_GONE = 499
"""nginx's code for a client that went away: nobody reads it."""


class PageQuery(Record):
    """Which part of a list."""

    start_index: NonNegativeInt | None = 0
    limit: PositiveInt | None = None


class TurnQuery(Record):
    """Which turns of a session."""

    turn_ids: list[str] | None = None


def _page(request: Request, data: list[dict[str, Any]], start: int, limit: int | None, *, more: bool) -> Response:
    place = quote(request.scope["path"], safe="/:")
    url = f"{place}?start_index={start + len(data)}&limit={limit}" if more else None
    return reply(PaginatedResponse(data=data, has_more=more, url=url))


@router.get("/v1alpha/agents", **published(PaginatedResponse, query=PAGE, says="A page of agents."))
def list_agents(request: Request, services: Server, page: Annotated[PageQuery, Depends(taken(PageQuery))]) -> Response:
    """List the agents: those of conf/agent, then the others in the order in which they were made."""
    from llsflow.agents.views import agent_view

    start = page.start_index or 0
    found, more = services.agents.agents(start, page.limit)
    return _page(request, [agent_view(agent).model_dump(mode="json") for agent in found], start, page.limit, more=more)


@router.post("/v1alpha/agents", **published(AgentCreateResponse, takes=CreateAgentRequest, says="The new agent's id."))
async def create_agent(
    services: Server, body: Annotated[CreateAgentRequest, Depends(taken(CreateAgentRequest, bare="agent_config"))]
) -> Response:
    """Make an agent; what its model or this server cannot do is refused now, not in a turn."""
    return reply(AgentCreateResponse(agent_id=await services.agents.create(body.agent_config)))


@router.get(AGENT, **published("Agent", says="The agent."))
def get_agent(agent_id: str, services: Server) -> Response:
    """Return an agent."""
    from llsflow.agents.views import agent_view

    return reply(agent_view(services.agents.agent(agent_id)))


@router.delete(AGENT, **published(status=204, says="It is gone."))
def delete_agent(agent_id: str, services: Server) -> Response:
    """Remove an agent with its sessions."""
    services.agents.delete(agent_id)
    return done()


@router.post(
    f"{AGENT}/session",
    **published(AgentSessionCreateResponse, takes=CreateAgentSessionRequest, says="The new session's id."),
)
def create_agent_session(
    agent_id: str,
    services: Server,
    body: Annotated[CreateAgentSessionRequest, Depends(taken(CreateAgentSessionRequest))],
) -> Response:
    """Begin a session with an agent.

    Where the agent's enable_session_persistence is not true, it lies in this server's memory and ends with it.
    """
    return reply(AgentSessionCreateResponse(session_id=services.agents.begin_session(agent_id, body.session_name)))


@router.get(f"{AGENT}/sessions", **published(PaginatedResponse, query=PAGE, says="A page of sessions."))
def list_agent_sessions(
    agent_id: str, request: Request, services: Server, page: Annotated[PageQuery, Depends(taken(PageQuery))]
) -> Response:
    """List the sessions of an agent, without their turns."""
    from llsflow.agents.views import session_record

    start = page.start_index or 0
    found, more = services.agents.sessions(agent_id, start, page.limit)
    return _page(request, [session_record(session) for session in found], start, page.limit, more=more)


@router.get(SESSION, **published("Session", query=TURN_IDS, says="The session."))
def get_agents_session(
    agent_id: str, session_id: str, services: Server, query: Annotated[TurnQuery, Depends(taken(TurnQuery))]
) -> Response:
    """Return a session with its turns, or those of them that are named."""
    from llsflow.agents.views import session_record

    session, sessions = services.agents.session(agent_id, session_id)
    turns = sessions.turns(session_id, query.turn_ids)
    unknown = sorted({*(query.turn_ids or ())} - {turn.turn_id for turn in turns})
    if unknown:
        raise NotFoundError(f"no turn {', '.join(map(repr, unknown))} of session {session_id!r}")
    return reply_plain(session_record(session, turns))


@router.delete(SESSION, **published(status=204, says="It is gone."))
def delete_agents_session(agent_id: str, session_id: str, services: Server) -> Response:
    """Remove a session with its turns."""
    _, sessions = services.agents.session(agent_id, session_id)
    sessions.delete(session_id)
    return done()


@router.post(
    f"{SESSION}/turn",
    **published("Turn", takes=CreateAgentTurnRequest, events=CHUNK, says="The turn, or its events as they come."),
)
async def create_agent_turn(
    agent_id: str,
    session_id: str,
    request: Request,
    services: Server,
    body: Annotated[CreateAgentTurnRequest, Depends(taken(CreateAgentTurnRequest))],
) -> Response:
    """Say something to the agent, and have it answer.

    A client that goes away ends the turn; what was done by then is kept.
    """
    events = await services.agents.begin_turn(agent_id, session_id, body)
    return await _answer(request, events, stream=bool(body.stream))


@router.get(TURN, **published("Turn", says="The turn."))
def get_agents_turn(agent_id: str, session_id: str, turn_id: str, services: Server) -> Response:
    """Return a turn."""
    from llsflow.agents.views import turn_record

    return reply_plain(turn_record(services.agents.turn(agent_id, session_id, turn_id)))


@router.post(
    f"{TURN}/resume",
    **published("Turn", takes=ResumeAgentTurnRequest, events=CHUNK, says="The turn, or its events as they come."),
)
async def resume_agent_turn(
    agent_id: str,
    session_id: str,
    turn_id: str,
    request: Request,
    services: Server,
    body: Annotated[Body, Depends(whole_body)],
) -> Response:
    """Go on with a turn that waits for the caller's tools.

    A bare ToolResponse answers the only call that it waits for.
    """
    bare = "call_id" in body.values and "tool_responses" not in body.values
    response = {name: value for name, value in body.values.items() if name != "stream"}
    beside = {name: value for name, value in body.values.items() if name == "stream"}
    given = Body(json.dumps({"tool_responses": [response], **beside}).encode(), body.query) if bare else body
    found = given.take(ResumeAgentTurnRequest)
    ignore(request, found.ignored)
    events = await services.agents.resume_turn(agent_id, session_id, turn_id, found.record)
    return await _answer(request, events, stream=bool(found.record.stream))


@router.get(f"{TURN}/step/{{step_id}}", **published(AgentStepResponse, says="The step."))
def get_agents_step(agent_id: str, session_id: str, turn_id: str, step_id: str, services: Server) -> Response:
    """Return one step of a turn."""
    turn = services.agents.turn(agent_id, session_id, turn_id)
    step = next((step for step in turn.steps if step["step_id"] == step_id), None)
    if step is None:
        raise NotFoundError(f"no step {step_id!r} of turn {turn_id!r}")
    return reply(AgentStepResponse.model_validate({"step": step}))


async def _answer(request: Request, events: AsyncIterator[Record], *, stream: bool) -> Response:
    if stream:
        return EventStream(events, event)
    last = await whole(request, events)
    return Response(status_code=READER_GONE) if last is None else reply(last.turn)  # type: ignore[attr-defined]
