"""Steps in which tools answer: those of the server, at once, and those that the caller has run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from llsflow.agents import history
from llsflow.agents.work import Payload, Work
from llsflow.schema.agents import (
    AgentTurnResponseStepProgressPayload,
    AgentTurnResponseStepStartPayload,
    StepType,
    ToolExecutionStep,
)
from llsflow.schema.inference import ToolCall, ToolCallDelta, ToolCallParseStatus, ToolResponse

KIND = StepType.TOOL_EXECUTION


async def run_tools(work: Work, calls: Sequence[ToolCall]) -> AsyncGenerator[Payload]:
    """Run calls at the same time, and yield the events of each in their order.

    Calls that are still under way when nobody reads on are cancelled.
    """
    running = [asyncio.create_task(_run(work, call)) for call in calls]
    try:
        for call, task in zip(calls, running, strict=True):
            step_id = str(uuid.uuid4())
            yield AgentTurnResponseStepStartPayload(step_type=KIND, step_id=step_id, metadata={})
            delta = ToolCallDelta(tool_call=call, parse_status=ToolCallParseStatus.IN_PROGRESS)
            yield AgentTurnResponseStepProgressPayload(step_type=KIND, step_id=step_id, delta=delta)
            step = await task
            yield await work.keep(step.model_copy(update={"step_id": step_id}))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _run(work: Work, call: ToolCall) -> ToolExecutionStep:
    began = datetime.now(UTC)
    response = await work.toolbox.run(call, work.context)
    return _step(work, [call], [response], began)


async def answered(work: Work, responses: Sequence[ToolResponse]) -> Payload:
    """Store what the caller's tools answered, and return the event of it."""
    calls = {call.call_id: call for call in history.waiting(history.steps_of(work.turn))}
    called = [calls.get(response.call_id) or _parsed_elsewhere(response) for response in responses]
    return await work.keep(_step(work, called, responses, datetime.now(UTC)))


def _parsed_elsewhere(response: ToolResponse) -> ToolCall:
    """Return the call that an answer is to, where the caller has read it from the model's text by itself."""
    return ToolCall(call_id=response.call_id, tool_name=response.tool_name, arguments="{}")


def _step(
    work: Work, calls: Sequence[ToolCall], responses: Sequence[ToolResponse], began: datetime
) -> ToolExecutionStep:
    return ToolExecutionStep(
        turn_id=work.turn.turn_id,
        step_id=str(uuid.uuid4()),
        started_at=began,
        completed_at=datetime.now(UTC),
        tool_calls=list(calls),
        tool_responses=list(responses),
    )
