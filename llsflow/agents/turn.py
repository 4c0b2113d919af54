"""The loop of a turn: the model speaks, its tools answer, and again, each step stored as it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from llsflow.agents.execution import answered, run_tools
from llsflow.agents.guards import look_at_input
from llsflow.agents.inference import infer
from llsflow.agents.work import Payload, Work
from llsflow.errors import LlsflowError
from llsflow.schema.agents import (
    AgentTurnResponseTurnAwaitingInputPayload,
    AgentTurnResponseTurnCompletePayload,
    AgentTurnResponseTurnStartPayload,
    Turn,
)
from llsflow.schema.inference import CompletionMessage, StopReason, ToolResponse
from llsflow.store.records import TurnStatus

CLIENT_LEFT = "the client went away in the middle of this turn"
"""The error of a turn that nobody read on."""


async def run(work: Work, responses: Sequence[ToolResponse] = ()) -> AsyncGenerator[Payload]:
    """Do a turn, or go on with one that `responses` answer, and yield its events; the last is whole.

    A turn that fails keeps its steps and its error.

    Raises:
        ValueError, LlsflowError: the model does not answer.
    """
    try:
        async with aclosing(_steps(work, responses)) as payloads:
            async for payload in payloads:
                yield payload
    except (ValueError, LlsflowError) as error:
        await _fail(work, str(error))
        raise
    except (GeneratorExit, asyncio.CancelledError):
        # the generation itself has ended with the stream: what is left is to say so
        await asyncio.shield(_fail(work, CLIENT_LEFT))
        raise
    except BaseException as error:
        await _fail(work, f"something went wrong here: {type(error).__name__}")
        raise


async def _fail(work: Work, why: str) -> None:
    if work.turn.status != "running":
        return  # it had ended: only its last event was not read
    await asyncio.to_thread(work.sessions.end, work.turn.turn_id, "failed", error=why)


async def _steps(work: Work, responses: Sequence[ToolResponse]) -> AsyncGenerator[Payload]:
    yield AgentTurnResponseTurnStartPayload(turn_id=work.turn.turn_id)
    async with aclosing(_before(work, responses)) as payloads:
        async for payload in payloads:
            yield payload
    if work.stopped:
        told = CompletionMessage(
            content=work.stopped.user_message or "", stop_reason=StopReason.END_OF_TURN, tool_calls=[]
        )
        yield AgentTurnResponseTurnCompletePayload(turn=await _end(work, "completed", told))
        return
    while True:
        async with aclosing(infer(work)) as payloads:
            async for payload in payloads:
                yield payload
        message = work.said
        assert message is not None  # noqa: S101 - the model has spoken
        calls = message.tool_calls or []
        if not calls or message.stop_reason is StopReason.OUT_OF_TOKENS:
            break
        if work.at_limit:
            message = message.model_copy(update={"stop_reason": StopReason.END_OF_TURN})
            break
        pending = [call for call in calls if work.toolbox.is_callers(call)]
        async with aclosing(run_tools(work, [call for call in calls if call not in pending])) as payloads:
            async for payload in payloads:
                yield payload
        if pending:
            kept = {"tool_calls": pending, "stop_reason": StopReason.END_OF_MESSAGE}
            turn = await _end(work, "awaiting_input", message.model_copy(update=kept))
            yield AgentTurnResponseTurnAwaitingInputPayload(turn=turn)
            return
    yield AgentTurnResponseTurnCompletePayload(turn=await _end(work, "completed", message))


async def _before(work: Work, responses: Sequence[ToolResponse]) -> AsyncGenerator[Payload]:
    """Do what comes before the model speaks."""
    if responses:
        yield await answered(work, responses)
    elif work.input_shields:
        async with aclosing(look_at_input(work, work.input_shields)) as payloads:
            async for payload in payloads:
                yield payload


async def _end(work: Work, status: TurnStatus, message: CompletionMessage) -> Turn:
    said = message.model_dump(mode="json")
    at = await asyncio.to_thread(work.sessions.end, work.turn.turn_id, status, output_message=said)
    work.turn = replace(work.turn, status=status, output_message=said, completed_at=at)
    return work.view(work.turn)
