"""The loop of a turn: the model speaks, its tools answer, and again, each step stored as it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llsflow.agents.execution import answered, run_tools
from llsflow.agents.guards import look_at_input, refusal
from llsflow.agents.inference import infer
from llsflow.agents.retrieval import started
from llsflow.agents.work import Payload, Work, ended
from llsflow.errors import LlsflowError
from llsflow.schema.agents import (
    AgentTurnResponseTurnAwaitingInputPayload,
    AgentTurnResponseTurnCompletePayload,
    AgentTurnResponseTurnStartPayload,
)
from llsflow.schema.inference import ToolResponse

CLIENT_LEFT = "the client went away in the middle of this turn"
"""The error of a turn that nobody read on."""


class Begun:
    """The events of a turn that has begun: to close them ends it, also where none was read."""

    def __init__(self, first: Payload, events: AsyncGenerator[Payload]) -> None:
        self._first: Payload | None = first
        self._events = events

    def __aiter__(self) -> Begun:
        """Return the events."""
        return self

    async def __anext__(self) -> Payload:
        """Return the next event."""
        first, self._first = self._first, None
        return first if first is not None else await anext(self._events)

    async def aclose(self) -> None:
        """End the turn, where it goes on."""
        await self._events.aclose()


async def begun(work: Work, responses: Sequence[ToolResponse] = ()) -> Begun:
    """Begin a turn, as `run` does it."""
    # what was not begun could not be ended: it would stand as under way for ever
    events = run(work, responses)
    return Begun(await anext(events), events)


async def run(work: Work, responses: Sequence[ToolResponse] = ()) -> AsyncGenerator[Payload]:
    """Do a turn, or go on with one that `responses` answer, and yield its events; the last is whole.

    A turn that fails keeps its steps and its error.

    Raises:
        ValueError, LlsflowError: the model does not answer.
    """
    done = len(work.turn.steps)
    error: str | None = None
    try:
        async with aclosing(_steps(work, responses)) as payloads:
            async for payload in payloads:
                yield payload
    except (ValueError, LlsflowError) as failure:
        error = str(failure)
        await _fail(work, error)
        raise
    except (GeneratorExit, asyncio.CancelledError):
        error = CLIENT_LEFT if work.turn.status == "running" else None
        # the generation itself has ended with the stream: what is left is to say so
        await asyncio.shield(_fail(work, CLIENT_LEFT))
        raise
    except BaseException as failure:
        error = f"something went wrong here: {type(failure).__name__}"
        await _fail(work, error)
        raise
    finally:
        if work.watch:
            work.watch.done(work.turn, done, error)


async def _fail(work: Work, why: str) -> None:
    if work.turn.status != "running":
        return  # it had ended: only its last event was not read
    await work.sessions.in_thread(work.sessions.end, work.turn.turn_id, "failed", error=why)


async def _steps(work: Work, responses: Sequence[ToolResponse]) -> AsyncGenerator[Payload]:
    yield AgentTurnResponseTurnStartPayload(turn_id=work.turn.turn_id)
    async with aclosing(_before(work, responses)) as payloads:
        async for payload in payloads:
            yield payload
    if work.stopped:
        await work.end(ended("completed", refusal(work.stopped)))
    while work.turn.status == "running":
        async with aclosing(_round(work)) as payloads:
            async for payload in payloads:
                yield payload
    turn = work.view(work.turn)
    if work.turn.status == "awaiting_input":
        yield AgentTurnResponseTurnAwaitingInputPayload(turn=turn)
    else:
        yield AgentTurnResponseTurnCompletePayload(turn=turn)


async def _round(work: Work) -> AsyncGenerator[Payload]:
    """Have the model speak, and the server's tools answer."""
    async with aclosing(infer(work)) as payloads:
        async for payload in payloads:
            yield payload
    if work.turn.status != "running":
        return
    calls = [call for call in (work.said and work.said.tool_calls) or () if not work.toolbox.is_callers(call)]
    async with aclosing(run_tools(work, calls)) as payloads:
        async for payload in payloads:
            yield payload
    if waiting := work.waiting():
        await work.end(waiting)


async def _before(work: Work, responses: Sequence[ToolResponse]) -> AsyncGenerator[Payload]:
    """Do what comes before the model speaks."""
    if responses:
        yield await answered(work, responses)
        return
    # before the shields, which look at what goes to the model
    if passages := await work.retrieval.step(work.earlier, work.turn):
        yield started(passages)
        yield await work.keep(passages)
    if work.input_shields:
        async with aclosing(look_at_input(work, work.input_shields)) as payloads:
            async for payload in payloads:
                yield payload
