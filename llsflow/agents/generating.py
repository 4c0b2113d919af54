"""One generation of an agent's model, streamed from an OpenAI-compatible endpoint or the embedded engine."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llsflow.errors import UnavailableError
from llsflow.models.endpoint import Channel, Unanswered
from llsflow.models.protocol import request_body
from llsflow.models.remote import RemoteModel
from llsflow.schema.inference import StopReason, ToolCall
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    import aiohttp


JUDGE_TOKENS = 128
"""Most that a shield's model may say."""


@dataclass
class Said:
    """What the model has said so far."""

    text: str = ""
    calls: dict[int, ToolCall] = field(default_factory=dict)
    """By their place."""
    finish: str | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def stop_reason(self) -> StopReason:
        """Return why it ended."""
        if self.finish == "length":
            return StopReason.OUT_OF_TOKENS
        return StopReason.END_OF_MESSAGE if self.calls else StopReason.END_OF_TURN

    def take(self, event: Any) -> tuple[str, str]:
        """Take an event in, and return what text and what of calls it adds.

        Source: platform.openai.com/docs/api-reference/chat-streaming.

        Raises:
            UnavailableError: it tells of a failure, or is none of the protocol's.
        """
        try:
            if error := event.get("error"):
                message = error.get("message") if isinstance(error, dict) else error
                raise UnavailableError(f"the model failed in the middle of its answer: {message}")
            if usage := event.get("usage"):
                self.tokens = {name: value for name, value in usage.items() if isinstance(value, int)}
            choices = event.get("choices") or []
            if not choices:
                return "", ""
            self.finish = choices[0].get("finish_reason") or self.finish
            delta = choices[0].get("delta") or {}
            text = str(delta.get("content") or "")
            self.text += text
            return text, "".join(self._part(part) for part in delta.get("tool_calls") or ())
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise UnavailableError("the endpoint streams something that is no chat completion") from error

    def _part(self, part: Mapping[str, Any]) -> str:
        place, function = int(part.get("index") or 0), part.get("function") or {}
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        known = self.calls.get(place)
        if known is None:
            known = ToolCall(call_id=part.get("id") or f"call_{uuid.uuid4().hex[:24]}", tool_name="", arguments="")
        self.calls[place] = known.model_copy(
            update={"tool_name": str(known.tool_name) + name, "arguments": known.arguments + arguments}
        )
        return str(name + arguments)


class Channels:
    """This server's connections to endpoints; used in one event loop."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Channel, aiohttp.ClientSession]] = {}

    @asynccontextmanager
    async def stream(self, model: RemoteModel, body: Mapping[str, Any]) -> AsyncGenerator[AsyncIterator[Any]]:
        """Give the events of an answer.

        Raises:
            ValueError: the model refuses the request, and why.
            NotFoundError, UnavailableError: there is no answer, and why.
        """
        key = model.endpoint.model_dump_json(exclude={"model"})
        if key not in self._open:
            channel = Channel(model.endpoint)
            self._open[key] = (channel, channel.open())
        channel, client = self._open[key]
        try:
            async with channel.stream(client, body, model.called) as events:
                yield events
        except Unanswered as error:
            raise UnavailableError(f"{model.called} does not answer: {error}") from None

    async def ask(self, model: RemoteModel, messages: Sequence[Mapping[str, Any]], most_tokens: int) -> str:
        """Return what a model answers, greedily.

        Raises:
            ValueError, NotFoundError, UnavailableError: it does not, and why.
        """
        said = Said()
        body = request_body(model.name, [dict(one) for one in messages], SamplingParams(max_tokens=most_tokens), None)
        async with self.stream(model, body) as events:
            async for event in events:
                said.take(event)
        return said.text

    async def close(self) -> None:
        """Close them."""
        while self._open:
            _, (_, client) = self._open.popitem()
            await client.close()
