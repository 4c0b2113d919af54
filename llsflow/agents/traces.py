"""A turn as its trace: what each step was given, what it gave, and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from llsflow.schema.agents import (
    InferenceStep,
    MemoryRetrievalStep,
    ShieldCallStep,
    Step,
    StepType,
    ToolExecutionStep,
)
from llsflow.schema.inference import CompletionMessage
from llsflow.schema.traces import SpanKind, TokenCounts, TraceSpan, TurnTrace
from llsflow.store import StoredTurn

_step: TypeAdapter[Step] = TypeAdapter(Step)

FAILED = "Error: "
"""How the answer of a tool that failed begins."""


@dataclass(frozen=True)
class EndedTurn:
    """What a trace is made of, as it is when a turn has ended or waits; plain, to be made one elsewhere."""

    agent_id: str
    name: str
    model: str
    session_id: str
    turn_id: str
    started_at: datetime
    ended_at: datetime
    messages: Sequence[Mapping[str, Any]]
    output: Mapping[str, Any] | None
    steps: Sequence[Mapping[str, Any]]
    """Every one, as it is stored."""
    before: int
    """How many there were when it was gone on with: their spans stay in its trace."""
    given: Mapping[str, Mapping[str, Any]]
    """What the model was given, by the step."""
    error: str | None


@dataclass
class Watch:
    """Sees to it that a turn becomes a trace."""

    take: Callable[[EndedTurn], None]
    """Never waits or raises."""
    agent_id: str
    name: str
    model: str
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the model was given, by the step."""

    def done(self, turn: StoredTurn, before: int, error: str | None) -> None:
        """Hand on a turn that has ended or waits, with the steps there were before, and why it failed."""
        self.take(
            EndedTurn(
                agent_id=self.agent_id,
                name=self.name,
                model=self.model,
                session_id=turn.session_id,
                turn_id=turn.turn_id,
                started_at=turn.started_at,
                ended_at=turn.completed_at or datetime.now(UTC),
                messages=turn.request["messages"],
                output=turn.output_message,
                steps=turn.steps,
                before=before,
                given=self.given,
                error=error,
            )
        )


def trace_of(turn: EndedTurn) -> TurnTrace:
    """Return the trace of a turn: those of its steps that are new to it, the tokens of all."""
    every = [step for step in turn.steps if step["step_type"] == StepType.INFERENCE]
    counts = [count for step in every if (count := TokenCounts.of_usage(step.get("usage") or {}))]
    steps = [_step.validate_python(step) for step in turn.steps[turn.before :]]
    return TurnTrace(
        name=turn.name,
        agent_id=turn.agent_id,
        session_id=turn.session_id,
        turn_id=turn.turn_id,
        started=turn.started_at,
        ended=turn.ended_at,
        messages=turn.messages,
        output=turn.output and _message(CompletionMessage.model_validate(turn.output)),
        tokens=sum(counts[1:], counts[0]) if counts else None,
        error=turn.error,
        spans=tuple(span for step in steps for span in _spans(turn, step)),
    )


def _spans(turn: EndedTurn, step: Step) -> Iterator[TraceSpan]:
    began = step.started_at or turn.started_at
    times = {"started": began, "ended": step.completed_at or began}
    if isinstance(step, InferenceStep):
        yield TraceSpan(
            kind=SpanKind.MODEL,
            name=turn.model,
            inputs=turn.given.get(step.step_id),
            outputs={"choices": [{"message": _message(step.model_response)}]},
            tokens=TokenCounts.of_usage(step.usage or {}),
            **times,
        )
    elif isinstance(step, ToolExecutionStep):
        for call, response in zip(step.tool_calls, step.tool_responses, strict=True):
            failed = isinstance(response.content, str) and response.content.startswith(FAILED)
            yield TraceSpan(
                kind=SpanKind.TOOL,
                name=str(call.tool_name) or "unreadable call",
                inputs=_arguments(call.arguments),
                outputs=response.model_dump(mode="json")["content"],
                error=str(response.content) if failed else None,
                **times,
            )
    elif isinstance(step, ShieldCallStep):
        yield TraceSpan(kind=SpanKind.SHIELD, name="shields", outputs={"violation": step.violation}, **times)
    elif isinstance(step, MemoryRetrievalStep):
        yield TraceSpan(kind=SpanKind.RETRIEVAL, name=step.vector_db_ids, outputs=step.inserted_context, **times)


def _message(said: CompletionMessage) -> dict[str, Any]:
    """Return what a model said as a message of OpenAI's protocol."""
    calls = [
        {"id": call.call_id, "type": "function", "function": {"name": str(call.tool_name), "arguments": call.arguments}}
        for call in said.tool_calls or ()
    ]
    return {"role": "assistant", "content": said.content, **({"tool_calls": calls} if calls else {})}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
