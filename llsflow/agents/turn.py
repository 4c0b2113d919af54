"""The loop of a turn: the model speaks, its tools answer, and again, each step stored as it is done."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from llsflow.agents import history, prompts
from llsflow.agents.generating import Channels, Said
from llsflow.agents.prompts import FORMATS, MalformedCallError
from llsflow.errors import LlsflowError
from llsflow.models.protocol import request_body
from llsflow.models.remote import RemoteModel
from llsflow.schema.agents import (
    AgentConfig,
    AgentTurnResponseStepCompletePayload,
    AgentTurnResponseStepProgressPayload,
    AgentTurnResponseStepStartPayload,
    AgentTurnResponseTurnAwaitingInputPayload,
    AgentTurnResponseTurnCompletePayload,
    AgentTurnResponseTurnStartPayload,
    InferenceStep,
    StepType,
    ToolExecutionStep,
    Turn,
)
from llsflow.schema.base import Record
from llsflow.schema.inference import (
    CompletionMessage,
    ContentDelta,
    JsonSchemaResponseFormat,
    ResponseFormat,
    StopReason,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallParseStatus,
    ToolChoice,
    ToolConfig,
    ToolDef,
    ToolPromptFormat,
    ToolResponse,
)
from llsflow.schema.sampling import SamplingParams
from llsflow.store import StoredTurn
from llsflow.store.sessions import Sessions

Payload = Record
"""One of AgentTurnResponseEventPayload."""

DEFAULT_GENERATIONS = 10
"""Of a turn, as in the specification."""

CLIENT_LEFT = "the client went away in the middle of this turn"
"""The error of a turn that nobody read on."""


@dataclass
class Work:
    """A turn and all that it works with."""

    config: AgentConfig
    tool_config: ToolConfig
    tools: Sequence[ToolDef]
    """Those that the caller runs."""
    model: RemoteModel
    form: ToolPromptFormat | None
    """How calls stand in the model's text; null: the endpoint has its own way."""
    earlier: Sequence[StoredTurn]
    turn: StoredTurn
    sessions: Sessions
    channels: Channels
    view: Callable[[StoredTurn], Turn]
    generations: int = field(init=False)

    def __post_init__(self) -> None:
        self.generations = self.turn.generations

    async def keep(self, step: InferenceStep | ToolExecutionStep, generations: int | None = None) -> None:
        """Store a step."""
        record = step.model_dump(mode="json")
        await asyncio.to_thread(self.sessions.add_step, self.turn.turn_id, record, generations)
        self.turn = replace(self.turn, steps=(*self.turn.steps, record))

    @property
    def offers_tools(self) -> bool:
        """Return whether the model may call a tool."""
        return bool(self.tools) and self.tool_config.tool_choice != ToolChoice.NONE

    @property
    def must_call(self) -> str | None:
        """Return what has to be called: a name, "required", or nothing, as after the first answer of a tool."""
        choice = self.tool_config.tool_choice
        answered = any(step["step_type"] == StepType.TOOL_EXECUTION for step in self.turn.steps)
        free = choice in (None, ToolChoice.AUTO, ToolChoice.NONE)
        return None if answered or free or not self.tools else str(choice)

    @property
    def form_now(self) -> ToolPromptFormat | None:
        """Return how the next calls are written: what has to be a call is made one by a JSON schema."""
        return ToolPromptFormat.JSON if self.form and self.must_call else self.form


def most_generations(config: AgentConfig) -> int:
    """Return how many generations a turn may have, across its resumptions."""
    return config.max_infer_iters or DEFAULT_GENERATIONS


async def run(work: Work, responses: Sequence[ToolResponse] = ()) -> AsyncIterator[Payload]:
    """Do a turn, or go on with one that `responses` answer, and yield its events; the last is whole.

    A turn that fails keeps its steps and its error.

    Raises:
        ValueError, LlsflowError: the model does not answer.
    """
    try:
        async for payload in _steps(work, responses):
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


async def _steps(work: Work, responses: Sequence[ToolResponse]) -> AsyncIterator[Payload]:
    yield AgentTurnResponseTurnStartPayload(turn_id=work.turn.turn_id)
    if responses:
        yield await _answered(work, responses)
    while True:
        async for payload in _generate(work):
            yield payload
        message = InferenceStep.model_validate(work.turn.steps[-1]).model_response
        calls = message.tool_calls or []
        if not calls or message.stop_reason is StopReason.OUT_OF_TOKENS:
            break
        at_limit = work.generations >= most_generations(work.config)
        unreadable = [call for call in calls if not _known(call, work.tools)]
        if unreadable and not at_limit:
            yield await _answered(work, [_refusal(call, work.tools) for call in unreadable])
        pending = [call for call in calls if call not in unreadable]
        if at_limit:
            message = message.model_copy(update={"stop_reason": StopReason.END_OF_TURN})
            break
        if pending:
            kept = {"tool_calls": pending, "stop_reason": StopReason.END_OF_MESSAGE}
            turn = await _end(work, "awaiting_input", message.model_copy(update=kept))
            yield AgentTurnResponseTurnAwaitingInputPayload(turn=turn)
            return
    yield AgentTurnResponseTurnCompletePayload(turn=await _end(work, "completed", message))


async def _end(work: Work, status: Any, message: CompletionMessage) -> Turn:
    said = message.model_dump(mode="json")
    at = await asyncio.to_thread(work.sessions.end, work.turn.turn_id, status, output_message=said)
    work.turn = replace(work.turn, status=status, output_message=said, completed_at=at)
    return work.view(work.turn)


async def _answered(work: Work, responses: Sequence[ToolResponse]) -> Payload:
    """Store what tools answered, and return the event of it."""
    calls = {call.call_id: call for call in history.waiting(history.steps_of(work.turn))}
    now = datetime.now(UTC)
    step = ToolExecutionStep(
        turn_id=work.turn.turn_id,
        step_id=str(uuid.uuid4()),
        started_at=now,
        completed_at=now,
        tool_calls=[calls.get(response.call_id) or _parsed_elsewhere(response) for response in responses],
        tool_responses=list(responses),
    )
    await work.keep(step)
    return _complete(step)


def _parsed_elsewhere(response: ToolResponse) -> ToolCall:
    """Return the call that an answer is to, where the caller has read it from the model's text by itself."""
    return ToolCall(call_id=response.call_id, tool_name=response.tool_name, arguments="{}")


async def _generate(work: Work) -> AsyncIterator[Payload]:
    """Have the model speak once."""
    step_id, began = str(uuid.uuid4()), datetime.now(UTC)
    yield AgentTurnResponseStepStartPayload(step_type=StepType.INFERENCE, step_id=step_id, metadata={})

    def progress(delta: ContentDelta) -> Payload:
        return AgentTurnResponseStepProgressPayload(step_type=StepType.INFERENCE, step_id=step_id, delta=delta)

    form = work.form_now if work.offers_tools else None
    said, held = Said(), _Held(form)
    async with work.channels.stream(work.model, _body(work)) as events:
        async for event in events:
            text, of_calls = said.take(event)
            for delta in (held.take(text), _partial(of_calls)):
                if delta is not None:
                    yield progress(delta)
    work.generations += 1
    calls = list(said.calls.values())
    text = said.text
    if held.holds:
        calls, text = _read(said, form)
        if not calls:
            yield progress(TextDelta(text=text))
    for call in calls:
        status = ToolCallParseStatus.SUCCEEDED if _known(call, work.tools) else ToolCallParseStatus.FAILED
        yield progress(ToolCallDelta(tool_call=call, parse_status=status))
    reason = said.stop_reason
    if reason is not StopReason.OUT_OF_TOKENS and calls:
        reason = StopReason.END_OF_MESSAGE
    step = InferenceStep(
        turn_id=work.turn.turn_id,
        step_id=step_id,
        started_at=began,
        completed_at=datetime.now(UTC),
        model_response=CompletionMessage(content=text, stop_reason=reason, tool_calls=calls),
    )
    await work.keep(step, work.generations)
    yield _complete(step)


class _Held:
    """Text that may be a call, which is told as such and not as an answer."""

    def __init__(self, form: ToolPromptFormat | None) -> None:
        self.form = form
        self.begin = ""
        self.holds = False

    def take(self, text: str) -> ContentDelta | None:
        """Return how more of the text is told."""
        if not text:
            return None
        if self.form is not None and not self.begin.strip():
            self.begin += text
            self.holds = bool(self.begin.strip()) and FORMATS[self.form].starts(self.begin.strip())
        return _partial(text) if self.holds else TextDelta(text=text)


def _partial(text: str) -> ContentDelta | None:
    return ToolCallDelta(tool_call=text, parse_status=ToolCallParseStatus.IN_PROGRESS) if text else None


def _read(said: Said, form: ToolPromptFormat | None) -> tuple[list[ToolCall], str]:
    """Return the calls that a text is, and what text is left: all of it where it is none."""
    assert form is not None  # noqa: S101 - text is held back only then
    if said.finish == "length":
        return [], said.text
    try:
        calls = prompts.read_calls(said.text, form)
    except MalformedCallError as error:
        return [ToolCall(call_id=f"call_{uuid.uuid4().hex[:24]}", tool_name="", arguments=str(error))], said.text
    return (calls, "") if calls else ([], said.text)


def _known(call: ToolCall, tools: Sequence[ToolDef]) -> bool:
    return any(tool.name == call.tool_name for tool in tools) and _is_object(call.arguments)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except (ValueError, RecursionError):
        return False


def _refusal(call: ToolCall, tools: Sequence[ToolDef]) -> ToolResponse:
    """Return what the model is told of a call that nobody can run."""
    if not call.tool_name:
        why = call.arguments
    elif not any(tool.name == call.tool_name for tool in tools):
        why = f"there is no function {call.tool_name!r}; known are {', '.join(tool.name for tool in tools)}"
    else:
        why = "the arguments are no JSON object: call it again with one"
    return ToolResponse(call_id=call.call_id, tool_name=call.tool_name, content=f"Error: {why}")


def _complete(step: InferenceStep | ToolExecutionStep) -> Payload:
    return AgentTurnResponseStepCompletePayload(
        step_type=StepType(step.step_type), step_id=step.step_id, step_details=step
    )


def _body(work: Work) -> dict[str, Any]:
    """Return the request of a generation."""
    config, offered = work.config, work.tools if work.offers_tools else ()
    said = history.messages(work.earlier, work.turn, work.form)
    system = prompts.system_message(config.instructions, offered, work.tool_config, work.form_now)
    every = [*([{"role": "system", "content": system}] if system else []), *said]
    must = work.must_call
    wanted: ResponseFormat | None = config.response_format
    if work.form is not None and must:
        tools = [tool for tool in offered if must in (ToolChoice.REQUIRED, tool.name)]
        wanted = JsonSchemaResponseFormat(json_schema=prompts.call_schema(tools))
    body = request_body(work.model.name, every, config.sampling_params or SamplingParams(), None, wanted)
    body["stream_options"] = {"include_usage": True}
    if work.form is None and offered:
        body["tools"] = prompts.native(offered)
        if must:
            named = {"type": "function", "function": {"name": must}}
            body["tool_choice"] = "required" if must == ToolChoice.REQUIRED else named
    return body
