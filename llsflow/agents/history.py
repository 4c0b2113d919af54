"""What an agent's model is given: instructions, the turns so far, and the turn under way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from llsflow.agents.content import described, images_of, part, text_of, wire
from llsflow.agents.documents import inserted
from llsflow.agents.prompts import write_calls
from llsflow.agents.sending import NO_ANSWER, NO_OUTPUT, Sending
from llsflow.models.calls import arguments_of, arguments_sent
from llsflow.schema.agents import InferenceStep, InputMessage, Step, StepType, ToolExecutionStep
from llsflow.schema.inference import (
    CompletionMessage,
    ImageContentItem,
    InterleavedContent,
    ToolCall,
    UserMessage,
)
from llsflow.store import StoredTurn

Wire = dict[str, Any]
"""A message as the OpenAI protocol has it."""

DOCUMENTS = "document_texts"
"""Key of a stored turn's request: the texts of its documents, which were read once."""

NEVER_ANSWERED = "This call was never answered."
"""What the model is told of a call that a turn was left waiting for."""

BROKEN = "Error: the arguments were cut off, or are no JSON object: the call was not run."
"""What it is told of one whose arguments nobody could read."""

_step: TypeAdapter[Step] = TypeAdapter(Step)
_input: TypeAdapter[list[InputMessage]] = TypeAdapter(list[InputMessage])


def input_messages(turn: StoredTurn) -> list[InputMessage]:
    """Return what a turn began with."""
    return _input.validate_python(turn.request["messages"], extra="ignore")


def steps_of(turn: StoredTurn) -> list[Step]:
    """Return the steps of a turn that were done."""
    return [_step.validate_python(step) for step in turn.steps]


def of_earlier(earlier: Sequence[StoredTurn], sending: Sending) -> list[Wire]:
    """Return the messages of the turns before, in their order.

    A turn that failed before the model said anything is left out: it is as if it had not been asked. Each of the others
    ends with an answer of the model, and each call in it is answered, as strict servers want it.
    """
    messages = _Messages(sending)
    for turn in told(earlier):
        messages.turn(turn, with_context=False)
        messages.end_turn()
    return messages.found


def told(earlier: Sequence[StoredTurn]) -> list[StoredTurn]:
    """Return the turns that the model is told about: those in which it has said something."""
    return [turn for turn in earlier if any(step["step_type"] == StepType.INFERENCE for step in turn.steps)]


def has_passages(turn: StoredTurn) -> bool:
    """Return whether passages go with a turn, instead of its whole documents."""
    return any(step["step_type"] == StepType.MEMORY_RETRIEVAL for step in turn.steps)


def of_current(turn: StoredTurn, sending: Sending) -> list[Wire]:
    """Return the messages of the turn under way."""
    messages = _Messages(sending)
    messages.turn(turn, with_context=True)
    return messages.found


def call_ids(turns: Iterable[StoredTurn]) -> Iterator[str]:
    """Yield the ids of all calls in some turns."""
    for turn in turns:
        for step in turn.steps:
            if step["step_type"] == StepType.INFERENCE:
                yield from (call["call_id"] for call in step["model_response"].get("tool_calls") or ())


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


class _Messages:
    """Writes turns as messages."""

    def __init__(self, sending: Sending) -> None:
        self.sending = sending
        self.found: list[Wire] = []
        self._open: list[tuple[ToolCall, str]] = []
        """Calls that are not answered yet, and their ids in the messages."""
        self._ids: set[str] = set()
        self._images: list[ImageContentItem] = []
        """Of tools, to be shown once every call is answered."""

    def turn(self, turn: StoredTurn, *, with_context: bool) -> None:
        """Write a turn."""
        asked = input_messages(turn)
        last = max((place for place, message in enumerate(asked) if isinstance(message, UserMessage)), default=-1)
        for place, message in enumerate(asked):
            if isinstance(message, UserMessage):
                more = _documents(turn) if place == last else ""
                self._add({"role": "user", "content": _content(message, more, with_context=with_context)})
            else:
                self._answer(message.call_id, message.content)
        for step in steps_of(turn):
            if isinstance(step, InferenceStep):
                self._said(step.model_response, None if self.sending.is_strict else step.reasoning_content)
            elif isinstance(step, ToolExecutionStep):
                for response in step.tool_responses:
                    self._answered(response.call_id, response.content)

    def end_turn(self) -> None:
        """Answer the calls that nothing has answered, and end with an answer of the model."""
        for call, call_id in self._open:
            self._answer(call_id, NEVER_ANSWERED if arguments_of(call.arguments) is not None else BROKEN)
        self._open.clear()
        self._show_images()
        if self.sending.is_strict and self.found[-1]["role"] != "assistant":
            self._add({"role": "assistant", "content": NO_ANSWER})

    def _add(self, message: Wire) -> None:
        self.found.append(message)

    def _said(self, message: CompletionMessage, reasoning: str | None) -> None:
        """Write what the model said; our engine's chat template decides itself which reasoning it writes again."""
        thought = {} if reasoning is None else {"reasoning_content": reasoning}
        text, calls = text_of(message.content), message.tool_calls or []
        is_empty = not text.strip() if self.sending.is_strict else not text
        if not calls:
            said = NO_ANSWER if is_empty and self.sending.is_strict else text
            self._add({"role": "assistant", "content": said, **thought})
            return
        written = [self._written(call) for call in calls]
        self._open += zip(calls, (call.call_id for call in written), strict=True)
        if self.sending.form is not None:
            self._add({"role": "assistant", "content": text or write_calls(written, self.sending.form), **thought})
            return
        content = None if is_empty else text
        calling = [_call(call) for call in written]
        self._add({"role": "assistant", "content": content, "tool_calls": calling, **thought})

    def _written(self, call: ToolCall) -> ToolCall:
        """Return a call as it is sent: with an id of its own, a name that is taken, and JSON as arguments."""
        call_id, number = call.call_id, 1
        while call_id in self._ids:  # of a session that was stored with equal ones; each time it gets the same
            number += 1
            call_id = hashlib.sha256(f"{call.call_id} {number}".encode()).hexdigest()[:9]
        self._ids.add(call_id)
        name = str(call.tool_name) if self.sending.form else self.sending.name(str(call.tool_name))
        return ToolCall(call_id=call_id, tool_name=name, arguments=arguments_sent(call.arguments))

    def _answered(self, call_id: str, content: InterleavedContent) -> None:
        for place, (call, sent_id) in enumerate(self._open):
            if call.call_id == call_id:
                del self._open[place]
                self._answer(sent_id, content)
                if not self._open:
                    self._show_images()
                return
        # of a call that only the caller has read the model knows nothing but its own text
        self._add({"role": "user", "content": text_of(content)})

    def _answer(self, call_id: str, content: InterleavedContent) -> None:
        """Write what a tool answered; its images as the endpoint takes them."""
        told: str | list[dict[str, Any]]
        match self.sending.images:
            case "tool_message":
                told = wire(content)
            case "user_message":
                told = described(content, "it is shown below")
                self._images += images_of(content)
            case _:
                told = described(content, "it is not shown to you")
        if self.sending.is_strict and isinstance(told, str) and not told.strip():
            told = NO_OUTPUT
        self._add({"role": "tool", "tool_call_id": call_id, "content": told})

    def _show_images(self) -> None:
        if self._images:
            words = {"type": "text", "text": "What the tools show:"}
            self._add({"role": "user", "content": [words, *(part(image) for image in self._images)]})
            self._images = []


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


def _call(call: ToolCall) -> Mapping[str, Any]:
    function = {"name": str(call.tool_name), "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}
