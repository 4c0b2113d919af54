"""One generation of an agent's model, streamed from an OpenAI-compatible endpoint or the embedded engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from llsflow.errors import UnavailableError
from llsflow.models.completion import Said
from llsflow.models.endpoint import Channel, Unanswered
from llsflow.models.protocol import request_body
from llsflow.models.remote import RemoteModel
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    import aiohttp


JUDGE_TOKENS = 128
"""Most that a shield's model may say."""


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
        said.end()
        return said.text

    async def close(self) -> None:
        """Close them."""
        while self._open:
            _, (_, client) = self._open.popitem()
            await client.close()
