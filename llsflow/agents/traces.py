"""A turn as its trace: what each step was given, what it gave, and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llsflow.schema.agents import (
    InferenceStep,
    MemoryRetrievalStep,
    ShieldCallStep,
    Step,
    StepType,
    ToolExecutionStep,
)
from llsflow.schema.traces import SpanKind, TokenCounts, TraceSpan, TurnTrace
from llsflow.store import StoredTurn

FAILED = "Error: "
"""How the answer of a tool that failed begins."""


@dataclass
class Watch:
    """Makes a trace of a turn and hands it on."""

    take: Callable[[TurnTrace], None]
    """Gets the trace; never waits or raises."""
    agent_id: str
    name: str
    model: str
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the model was given, by the step."""

    def done(self, turn: StoredTurn, steps: list[Step], error: str | None) -> None:
        """Hand on the trace of a turn that has ended or waits.

        Args:
            turn: as it is now.
            steps: those that were done since it began, or was gone on with: earlier ones stay in its trace.
            error: why it failed; null: it did not.
        """
        every = [step for step in turn.steps if step["step_type"] == StepType.INFERENCE]
        counts = [count for step in every if (count := TokenCounts.of_usage(step.get("usage") or {}))]
        self.take(
            TurnTrace(
                name=self.name,
                agent_id=self.agent_id,
                session_id=turn.session_id,
                turn_id=turn.turn_id,
                started=turn.started_at,
                ended=turn.completed_at or datetime.now(UTC),
                messages=turn.request["messages"],
                output=turn.output_message,
                tokens=sum(counts[1:], counts[0]) if counts else None,
                error=error,
                spans=tuple(span for step in steps for span in self._spans(step)),
            )
        )

    def _spans(self, step: Step) -> Iterator[TraceSpan]:
        began = step.started_at or datetime.now(UTC)
        times = {"started": began, "ended": step.completed_at or began}
        if isinstance(step, InferenceStep):
            yield TraceSpan(
                kind=SpanKind.MODEL,
                name=self.model,
                inputs=self.given.get(step.step_id),
                outputs={"choices": [{"message": _message(step)}]},
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


def _message(step: InferenceStep) -> dict[str, Any]:
    said = step.model_response
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
