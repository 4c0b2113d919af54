"""The bodies of the OpenAI protocol's answers: whole, in events, and errors."""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llsflow.models.protocol import CompletionRequest, EmbeddingRequest, RankingRequest, SampledRequest

if TYPE_CHECKING:
    from llsflow.models.lanes import Answer
    from llsflow.models.responses import Call, Said

LAST_EVENT = b"data: [DONE]\n\n"


class Reply:
    """How one request is answered: as a chat or as a text."""

    def __init__(self, request: SampledRequest) -> None:
        self.chat = not isinstance(request, CompletionRequest)
        self.model = request.model
        self.counts = bool(request.stream_options and request.stream_options.include_usage)
        """Whether a stream's last event counts the tokens."""
        kind = "chatcmpl" if self.chat else "cmpl"
        self.id, self.created = f"{kind}-{uuid.uuid4().hex}", int(time.time())
        self._calls = 0
        """Calls that were streamed."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return the body of a whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if answer.calls else "")}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [_call(call) for call in answer.calls]
        said = {"message": message} if self.chat else {"text": answer.text}
        choice = {"index": 0, **said, "finish_reason": finish_of(answer), "logprobs": None}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": _usage(answer)}

    def part(self, more: Said | None = None, finish: str | None = None, *, first: bool = False) -> bytes:
        """Return the event of more that was said, or of the end."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if more and (more.text or not (more.reasoning or more.calls)):
            delta["content"] = more.text
        if more and more.reasoning:
            delta["reasoning_content"] = more.reasoning
        if more and more.calls:
            numbered = enumerate(more.calls, self._calls)
            delta["tool_calls"] = [{"index": place, **_call(call)} for place, call in numbered]
            self._calls += len(more.calls)
        said = {"delta": delta} if self.chat else {"text": more.text if more else ""}
        choice = {"index": 0, **said, "finish_reason": finish, "logprobs": None}
        return event(
            {**self._head(self._kind_of_part()), "choices": [choice], **({"usage": None} if self.counts else {})}
        )

    def count(self, answer: Answer) -> bytes:
        """Return the event that counts the tokens."""
        return event({**self._head(self._kind_of_part()), "choices": [], "usage": _usage(answer)})

    def _kind_of_part(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def finish_of(answer: Answer) -> str:
    """Return why an answer ended, as the protocol has it: an answer of calls waits for what they give."""
    return "tool_calls" if answer.calls and answer.finish == "stop" else answer.finish


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def ranking_body(request: RankingRequest, scores: Sequence[float]) -> dict[str, Any]:
    """Return the body of an order of documents, the most relevant first; of equal ones the first in the request."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: request.top_n]
    texts = request.texts
    repeated = [{"document": {"text": texts[place]}} if request.return_documents else {} for place in order]
    results = [
        {"index": place, "relevance_score": scores[place], **more} for place, more in zip(order, repeated, strict=True)
    ]
    return {"id": f"rerank-{uuid.uuid4().hex}", "model": request.model, "results": results}


def embedding_body(request: EmbeddingRequest, vectors: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the body of the vectors of texts; what they count in tokens is not told."""

    def told(vector: Sequence[float]) -> Any:
        if request.encoding_format == "float":
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

    data = [{"object": "embedding", "index": place, "embedding": told(vector)} for place, vector in enumerate(vectors)]
    return {"object": "list", "model": request.model, "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}}


def event(body: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error in the protocol's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _usage(answer: Answer) -> dict[str, Any]:
    prompt, made = answer.prompt_tokens, answer.tokens
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
