"""The OpenAI protocol's chat completions: what a request says, and how it is said; the same on both sides."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from llsflow.data.conversation import Conversation, messages_of
from llsflow.schema.base import Int, NonNegativeInt, PositiveInt, Record, Text
from llsflow.schema.kinds import Kind, mistake_in_words
from llsflow.schema.sampling import (
    GreedySamplingStrategy,
    SamplingParams,
    SamplingStrategy,
    TopKSamplingStrategy,
    TopPSamplingStrategy,
)

NOT_YET: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "n": (1,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "response_format": ({"type": "text"},),
}
"""Fields of the protocol that are taken only with a value that changes nothing."""

WITHOUT_EFFECT = ("user", "metadata", "store", "safety_identifier", "service_tier")
"""Fields that are for the books of a hosted service."""

OUT_OF_MEMORY, NOT_A_NUMBER = "out_of_memory", "not_a_number"
"""Codes of failures that are about one request, however often it is sent: no other is touched."""


class ChatRequest(Record):
    """The part of a request that decides the answer."""

    model: Text
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """0: greedy; null: 1, as the protocol has it."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """null: 1."""
    top_k: Int | None = None
    """-1, 0 or null: all. Not part of the protocol, but of most servers."""
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    """As top_k: most servers take it."""
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    """The newer name of max_tokens."""
    stop: Annotated[list[Text], Field(max_length=4)] | None = None
    seed: NonNegativeInt | None = None
    """Null: a new one each time."""


def read_request(body: object) -> ChatRequest:
    """Return the request that a JSON body holds.

    Raises:
        ValueError: every field that is missing, wrong or not available, in one text.
    """
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object: send {model, messages, …}")
    mistakes = []
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in WITHOUT_EFFECT:
            continue
        if name in ChatRequest.model_fields:
            kept[name] = [value] if name == "stop" and isinstance(value, str) else value
        elif value not in NOT_YET.get(name, ()):
            mistakes.append(f"{name}: not available here: leave it out")
    try:
        request = ChatRequest.model_validate(kept)
    except ValidationError as error:
        mistakes += [_in_words(details) for details in error.errors(include_url=False)]
    else:
        mistakes += _contradictions(request)
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return request


def _in_words(details: ErrorDetails) -> str:
    kind: Kind | None = Kind.of(ChatRequest)
    for part in details["loc"]:
        kind = kind.child(part) if kind else None
    return f"{'.'.join(map(str, details['loc']))}: {mistake_in_words(details, kind)}"


def _contradictions(request: ChatRequest) -> list[str]:
    mistakes = []
    if request.max_tokens and request.max_completion_tokens and request.max_tokens != request.max_completion_tokens:
        mistakes.append("max_tokens and max_completion_tokens are the same thing: send one of them")
    if _cut(request) and request.temperature != 0:
        if request.top_p not in (None, 1):
            mistakes.append("top_k and top_p together are not available: send one of them")
        if request.temperature not in (None, 1):
            mistakes.append("top_k takes temperature 1 or 0: leave one of them out")
    return mistakes


def _cut(request: ChatRequest) -> int | None:
    return request.top_k if request.top_k is not None and request.top_k > 0 else None


def conversation_of(request: ChatRequest) -> Conversation:
    """Return the request's messages.

    Raises:
        ValueError: a role or content that no chat template takes.
    """
    return messages_of({"messages": request.messages})


def sampling_of(request: ChatRequest) -> SamplingParams:
    """Return how the answer is sampled."""
    top_k = _cut(request)
    strategy: SamplingStrategy
    if request.temperature == 0:
        strategy = GreedySamplingStrategy()
    elif top_k:
        strategy = TopKSamplingStrategy(top_k=top_k)
    else:
        temperature = 1.0 if request.temperature is None else request.temperature
        strategy = TopPSamplingStrategy(temperature=temperature, top_p=request.top_p)
    return SamplingParams(
        strategy=strategy,
        max_tokens=request.max_tokens or request.max_completion_tokens,
        repetition_penalty=request.repetition_penalty or 1.0,
        stop=request.stop or None,
    )


def request_body(
    model: str, conversation: Sequence[Mapping[str, object]], sampling: SamplingParams, seed: int | None
) -> dict[str, Any]:
    """Return the JSON body of a request: what `sampling_of` reads back is `sampling`."""
    body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in conversation]}
    match sampling.strategy:
        case GreedySamplingStrategy():
            body["temperature"] = 0
        case TopPSamplingStrategy(temperature=temperature, top_p=top_p):
            body |= {"temperature": temperature, "top_p": 1.0 if top_p is None else top_p}
        case TopKSamplingStrategy(top_k=top_k):
            body |= {"temperature": 1, "top_k": top_k}
    if sampling.repetition_penalty not in (None, 1.0):
        body["repetition_penalty"] = sampling.repetition_penalty
    for name, value in (("max_tokens", sampling.max_tokens), ("stop", sampling.stop), ("seed", seed)):
        if value is not None:
            body[name] = value
    return body


def completion(model: str, text: str, finish: Literal["stop", "length"], prompt: int, made: int) -> dict[str, Any]:
    """Return the body of an answer; `prompt` and `made` count tokens."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made},
    }


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error in the protocol's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
