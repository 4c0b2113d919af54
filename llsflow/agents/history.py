"""What an agent's model is given: instructions, the turns so far, and the turn under way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from llsflow.agents.content import text_of, wire
from llsflow.agents.documents import inserted
from llsflow.agents.prompts import write_calls
from llsflow.schema.agents import InferenceStep, InputMessage, Step, StepType, ToolExecutionStep
from llsflow.schema.inference import CompletionMessage, ToolCall, ToolPromptFormat, UserMessage
from llsflow.store import StoredTurn

Wire = dict[str, Any]
"""A message as the OpenAI protocol has it."""

DOCUMENTS = "document_texts"
"""Key of a stored turn's request: the texts of its documents, which were read once."""

NEVER_ANSWERED = "This call was never answered."
"""What the model is told of a call that a turn was left waiting for."""

_step: TypeAdapter[Step] = TypeAdapter(Step)
_input: TypeAdapter[list[InputMessage]] = TypeAdapter(list[InputMessage])


def input_messages(turn: StoredTurn) -> list[InputMessage]:
    """Return what a turn began with."""
    return _input.validate_python(turn.request["messages"], extra="ignore")


def steps_of(turn: StoredTurn) -> list[Step]:
    """Return the steps of a turn that were done."""
    return [_step.validate_python(step) for step in turn.steps]


def of_earlier(earlier: Sequence[StoredTurn], form: ToolPromptFormat | None) -> list[Wire]:
    """Return the messages of the turns before, in their order.

    A turn that failed before the model said anything is left out: it is as if it had not been asked.

    Args:
        earlier: the session's turns before this one.
        form: how calls stand in the text; null: the protocol carries them.
    """
    found: list[Wire] = []
    for turn in told(earlier):
        found += _turn(turn, form, with_context=False)
        found += [_answer(call.call_id, NEVER_ANSWERED) for call in waiting(steps_of(turn))]
    return found


def told(earlier: Sequence[StoredTurn]) -> list[StoredTurn]:
    """Return the turns that the model is told about: those in which it has said something."""
    return [turn for turn in earlier if any(step["step_type"] == StepType.INFERENCE for step in turn.steps)]


def has_passages(turn: StoredTurn) -> bool:
    """Return whether passages go with a turn, instead of its whole documents."""
    return any(step["step_type"] == StepType.MEMORY_RETRIEVAL for step in turn.steps)


def of_current(turn: StoredTurn, form: ToolPromptFormat | None) -> list[Wire]:
    """Return the messages of the turn under way."""
    return list(_turn(turn, form, with_context=True))


def waiting(steps: Iterable[Step]) -> list[ToolCall]:
    """Return the calls of a turn that no answer is there for, in their order."""
    calls: dict[str, ToolCall] = {}
    for step in steps:
        if isinstance(step, InferenceStep):
            calls |= {call.call_id: call for call in step.model_response.tool_calls or ()}
        elif isinstance(step, ToolExecutionStep):
            for response in step.tool_responses:
                calls.pop(response.call_id, None)
    return list(calls.values())


def _turn(turn: StoredTurn, form: ToolPromptFormat | None, *, with_context: bool) -> Iterator[Wire]:
    asked = input_messages(turn)
    last = max((place for place, message in enumerate(asked) if isinstance(message, UserMessage)), default=-1)
    for place, message in enumerate(asked):
        if isinstance(message, UserMessage):
            more = _documents(turn) if place == last else ""
            yield {"role": "user", "content": _content(message, more, with_context=with_context)}
        else:
            yield _answer(message.call_id, text_of(message.content))
    called: set[str] = set()
    for step in steps_of(turn):
        if isinstance(step, InferenceStep):
            called |= {call.call_id for call in step.model_response.tool_calls or ()}
            yield _said(step.model_response, form)
        elif isinstance(step, ToolExecutionStep):
            for response in step.tool_responses:
                text = text_of(response.content)
                # of a call that only the caller has read the model knows nothing but its own text
                yield (
                    _answer(response.call_id, text) if response.call_id in called else {"role": "user", "content": text}
                )


def _documents(turn: StoredTurn) -> str:
    """Return what stands behind the user's message: passages that were looked up, or the whole documents."""
    for step in turn.steps:
        if step["step_type"] == StepType.MEMORY_RETRIEVAL:
            return str(step["inserted_context"])
    return inserted(turn.request.get(DOCUMENTS, ()))


def _content(message: UserMessage, documents: str, *, with_context: bool) -> Any:
    """Return a user's message with what goes behind it."""
    said = wire(message.content)
    context = f"\n\n{text_of(message.context)}" if with_context and message.context is not None else ""
    more = context + documents
    if isinstance(said, str):
        return said + more
    return [*said, {"type": "text", "text": more.lstrip("\n")}] if more else said


def _said(message: CompletionMessage, form: ToolPromptFormat | None) -> Wire:
    text, calls = text_of(message.content), message.tool_calls or []
    if not calls:
        return {"role": "assistant", "content": text}
    if form is not None:
        return {"role": "assistant", "content": text or write_calls(calls, form)}
    return {"role": "assistant", "content": text or None, "tool_calls": [_call(call) for call in calls]}


def _call(call: ToolCall) -> Mapping[str, Any]:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": str(call.tool_name), "arguments": call.arguments},
    }


def _answer(call_id: str, text: str) -> Wire:
    return {"role": "tool", "tool_call_id": call_id, "content": text}
