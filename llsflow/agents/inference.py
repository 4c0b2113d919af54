"""One step in which the model speaks: its text as it comes, the calls in it, and what it was given."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import count
from typing import Any

from llsflow.agents import history, prompts
from llsflow.agents.guards import OUTPUT, refusal, shield_step, spoken, started, stops
from llsflow.agents.prompts import FORMATS, MalformedCallError
from llsflow.agents.work import Payload, Work
from llsflow.models.completion import BrokenOffError, Said
from llsflow.models.endpoint import wait_before_try
from llsflow.models.protocol import request_body
from llsflow.schema.agents import (
    AgentTurnResponseStepProgressPayload,
    AgentTurnResponseStepStartPayload,
    InferenceStep,
    ShieldCallStep,
    StepType,
)
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
    ToolPromptFormat,
)
from llsflow.schema.sampling import SamplingParams
from llsflow.shields import Said as ShieldSaid
from llsflow.shields import holds_back, look


async def infer(work: Work) -> AsyncGenerator[Payload]:
    """Have the model speak once, and yield the events of it.

    Where a shield holds answers back, nothing of the text is told before it has passed; what a shield stops is told and
    stored nowhere: the user's message of the violation stands in its place.

    Raises:
        ValueError, LlsflowError: the model does not answer, or a shield cannot be asked.
    """
    step_id, began = str(uuid.uuid4()), datetime.now(UTC)
    yield AgentTurnResponseStepStartPayload(step_type=StepType.INFERENCE, step_id=step_id, metadata={})
    withheld: list[Payload] | None = [] if holds_back(work.output_shields) else None
    body, speech = _body(work), _Speech(work)
    if work.watch:
        work.watch.given[step_id] = {name: body[name] for name in ("messages", "tools") if name in body}
    async with aclosing(speech.deltas(body)) as deltas:
        async for delta in deltas:
            payload = AgentTurnResponseStepProgressPayload(step_type=StepType.INFERENCE, step_id=step_id, delta=delta)
            if withheld is None:
                yield payload
            else:
                withheld.append(payload)
    work.generations += 1
    assert work.said is not None  # noqa: S101 - the model has spoken
    step = InferenceStep(
        turn_id=work.turn.turn_id,
        step_id=step_id,
        started_at=began,
        completed_at=datetime.now(UTC),
        model_response=work.said,
        usage=dict(speech.said.tokens) or None,
        reasoning_content=speech.said.reasoning or None,
    )
    looked = await _looked_at(work, str(work.said.content)) if work.output_shields and work.said.content else None
    if looked and stops(looked.violation):
        withheld = []
        step = step.model_copy(update={"model_response": work.said})
    for told in withheld or ():
        yield told
    ending = work.ending()
    yield await work.keep(step, None if looked else ending)
    if looked:
        yield started(looked.step_id, OUTPUT)
        yield await work.keep(looked, ending)


class _Speech:
    """One answer of the model."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._begin()

    def _begin(self) -> None:
        names = {sent: name for name, sent in self.work.sending.names.items()}
        turns = [*self.work.earlier, self.work.turn]
        self.said = Said(names, frozenset(history.call_ids(turns)))
        self.held = _Held(self.work.form_now if self.work.offers_tools else None)

    async def deltas(self, body: dict[str, Any]) -> AsyncGenerator[ContentDelta]:
        """Yield what the model says as it comes; in the end it is `work.said`.

        Raises:
            ValueError, LlsflowError: the model does not answer.
        """
        for tried in count():
            try:
                async with aclosing(self._tried(body)) as deltas:
                    async for delta in deltas:
                        yield delta
                break
            except BrokenOffError:
                if tried >= self.work.again:
                    raise
                await wait_before_try(tried)
                self._begin()
        for delta in self._taken_in():
            yield delta

    async def _tried(self, body: dict[str, Any]) -> AsyncGenerator[ContentDelta]:
        async with self.work.channels.stream(self.work.model, body) as events:
            async for event in events:
                text, of_calls = self.said.take(event)
                for delta in (self.held.take(text), _partial(of_calls)):
                    if delta is not None:
                        yield delta
        self.said.end()

    def _taken_in(self) -> Iterator[ContentDelta]:
        """Make `work.said` of the answer, and yield the calls in it."""
        work, said = self.work, self.said
        calls, text = said.calls, said.text
        if self.held.holds and not calls:
            calls, text = _read(work, said, self.held.form)
            if not calls:
                yield TextDelta(text=text)
        for call in calls:
            readable = work.toolbox.problem(call) is None
            status = ToolCallParseStatus.SUCCEEDED if readable else ToolCallParseStatus.FAILED
            yield ToolCallDelta(tool_call=call, parse_status=status)
        reason = said.stop_reason
        if reason is not StopReason.OUT_OF_TOKENS and calls:
            reason = StopReason.END_OF_MESSAGE
        work.said, work.finish = CompletionMessage(content=text, stop_reason=reason, tool_calls=calls), said.ending


async def _looked_at(work: Work, text: str) -> ShieldCallStep:
    """Ask the shields about an answer; one that stops it takes its place in `work.said`."""
    began = datetime.now(UTC)
    violation = await look(work.output_shields, [*spoken([*work.before, *work.asked]), ShieldSaid("assistant", text)])
    if violation and stops(violation):
        work.said = refusal(violation)
    return shield_step(work, str(uuid.uuid4()), began, violation)


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


def _read(work: Work, said: Said, form: ToolPromptFormat | None) -> tuple[list[ToolCall], str]:
    """Return the calls that a text is, and what text is left: all of it where it is none."""
    assert form is not None  # noqa: S101 - text is held back only then
    if said.finish == "length":
        return [], said.text
    try:
        calls = prompts.read_calls(said.text, form)
    except MalformedCallError as error:
        return [ToolCall(call_id=f"call_{uuid.uuid4().hex[:24]}", tool_name="", arguments=str(error))], said.text
    if work.config.response_format and any(call.tool_name not in work.toolbox.names for call in calls or ()):
        return [], said.text  # an answer of that format which happens to have a name
    return (calls, "") if calls else ([], said.text)


def _body(work: Work) -> dict[str, Any]:
    """Return the request of a generation."""
    config, offered = work.config, work.toolbox.definitions if work.offers_tools else ()
    said = [*work.before, *history.of_current(work.turn, work.sending)]
    system = prompts.system_message(config.instructions, offered, work.tool_config, work.form_now)
    every = [*([{"role": "system", "content": system}] if system else []), *said]
    must = work.must_call
    wanted: ResponseFormat | None = config.response_format
    if work.form is not None and must:
        tools = [tool for tool in offered if must in (ToolChoice.REQUIRED, tool.name)]
        wanted = JsonSchemaResponseFormat(json_schema=prompts.call_schema(tools))
    elif work.form is not None and offered and isinstance(wanted, JsonSchemaResponseFormat):
        wanted = JsonSchemaResponseFormat(json_schema=prompts.call_or(offered, wanted.json_schema))
    body = request_body(work.model.name, every, config.sampling_params or SamplingParams(), work.seed, wanted)
    body["stream_options"] = {"include_usage": True}
    if work.form is None and offered:
        body["tools"] = work.sending.tools(offered)
        if must:
            named = {"type": "function", "function": {"name": work.sending.name(must)}}
            body["tool_choice"] = "required" if must == ToolChoice.REQUIRED else named
    return body
