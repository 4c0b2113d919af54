"""What is recorded of a turn in MLflow: a tree of spans, each with what went in, what came out, and when."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator

from llsflow.schema.base import Record

CONTENT_CHARACTERS = 100_000
"""Most characters of the inputs, and of the outputs, of one span."""
DEEPEST = 40
"""Levels of a content; what lies below is left out."""
MOST_PARTS = 5_000
"""Texts, numbers, lists and objects of a content; what comes after them is left out."""

_NODE_CHARACTERS = 8
"""What a list, an object, a number or a text counts for besides its characters."""
_IMAGES = frozenset({"image", "image_url", "input_image"})
_SECRETS = frozenset({"api_key", "authorization", "headers", "password", "x-llamastack-provider-data"})
"""Keys whose values are not recorded, in whatever a tool or a model was given."""


def bounded(value: Any) -> Any:
    """Return a content as plain JSON of at most CONTENT_CHARACTERS, whatever it is; never raises.

    Long texts are cut to one length, so that short ones stay whole beside a long one. Images are replaced by a note.
    """
    plain = _Reading().plain(value)
    if characters(plain) <= CONTENT_CHARACTERS:
        return plain
    texts = sorted(len(text) for text in _texts(plain))
    short = _cut(plain, _share(texts, CONTENT_CHARACTERS - characters(plain) + sum(texts)))
    if characters(short) <= CONTENT_CHARACTERS:
        return short
    return f"[left out: {len(texts):,} texts, {characters(plain):,} characters]"


def characters(content: Any) -> int:
    """Return about how many characters a content of plain JSON takes."""
    if isinstance(content, str):
        return len(content) + _NODE_CHARACTERS
    if isinstance(content, dict):
        return _NODE_CHARACTERS + sum(len(key) + characters(value) for key, value in content.items())
    if isinstance(content, list):
        return _NODE_CHARACTERS + sum(map(characters, content))
    return _NODE_CHARACTERS


class _Reading:
    """One walk through a content, which ends after MOST_PARTS."""

    def __init__(self) -> None:
        self.left = MOST_PARTS

    def plain(self, value: Any, levels: int = DEEPEST) -> Any:
        """Return a content as plain JSON."""
        self.left -= 1
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            return _leaf(value)
        if levels == 0:
            return "…"
        if isinstance(value, BaseModel):
            value = {name: inner for name, inner in value if inner is not None}
        if isinstance(value, Mapping):
            return self._object(value, levels - 1)
        if isinstance(value, (Sequence, AbstractSet)):
            return [*(self.plain(inner, levels - 1) for inner in self._first(value)), *self._rest()]
        try:
            return str(value)
        except Exception:
            return f"[{type(value).__name__}]"

    def _object(self, value: Mapping[Any, Any], levels: int) -> dict[str, Any]:
        if value.get("type") in _IMAGES:
            return {"type": "text", "text": "[image]"}
        plain = {}
        for key in self._first(value):
            name = str(key)
            plain[name] = "[left out]" if name.lower() in _SECRETS else self.plain(value[key], levels)
        return plain | dict.fromkeys(self._rest(), "…")

    def _first(self, parts: Iterable[Any]) -> Iterator[Any]:
        return itertools.takewhile(lambda _: self.left > 0, parts)

    def _rest(self) -> Sequence[str]:
        return [] if self.left > 0 else ["…"]


def _leaf(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"[{len(value):,} bytes]"
    if isinstance(value, str):
        text = str(value)
        if text.startswith("data:") and ";base64," in text[:200]:
            return f"[{text[5:].partition(';')[0]}, {len(text):,} characters of base64]"
        return text
    # of numbers, JSON knows no infinity, and MLflow's protocol 64 bits
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool) or value is None or abs(value) < 1 << 63 else f"[{value:.3e}]"


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)


def _share(lengths: Sequence[int], room: int) -> int:
    """Return the length to which texts of these lengths, the shortest first, are cut to fit together."""
    for number, length in enumerate(lengths):
        fair = max(room, 0) // (len(lengths) - number)
        if length > fair:
            return fair
        room -= length
    return CONTENT_CHARACTERS


def _cut(content: Any, limit: int) -> Any:
    if isinstance(content, str):
        return content if len(content) <= limit else content[: max(limit - 1, 0)] + "…"[:limit]
    if isinstance(content, dict):
        return {key: _cut(value, limit) for key, value in content.items()}
    return [_cut(value, limit) for value in content] if isinstance(content, list) else content


Content = Annotated[Any, BeforeValidator(bounded)]
"""Anything, kept as plain JSON and bounded."""


class SpanKind(StrEnum):
    """What a part of a turn does."""

    MODEL = "model"
    TOOL = "tool"
    SHIELD = "shield"
    RETRIEVAL = "retrieval"


class TokenCounts(Record):
    """What a model read and wrote."""

    input: int
    output: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.input + self.output

    @classmethod
    def of_usage(cls, usage: Mapping[str, int]) -> TokenCounts | None:
        """Return the counts of an OpenAI-compatible `usage`; None where it says nothing.

        Source: platform.openai.com/docs/api-reference/chat/object.
        """
        if not {"prompt_tokens", "completion_tokens"} & usage.keys():
            return None
        return cls(input=usage.get("prompt_tokens", 0), output=usage.get("completion_tokens", 0))

    def __add__(self, other: TokenCounts) -> TokenCounts:
        """Return both together."""
        return TokenCounts(input=self.input + other.input, output=self.output + other.output)


class TraceSpan(Record):
    """A part of a turn that has ended."""

    kind: SpanKind
    name: str
    """Of the model, the tool, the shield or the vector store."""
    started: AwareDatetime
    ended: AwareDatetime
    inputs: Content = None
    """Of a model, a chat completion's request: `{"messages": […], "tools": […]}`; MLflow's page shows it as a chat."""
    outputs: Content = None
    """Of a model, an assistant's message: `{"choices": [{"message": {…}}]}`."""
    tokens: TokenCounts | None = None
    error: str | None = None
    """Why it failed; null: it did not."""
    spans: tuple[TraceSpan, ...] = ()
    """What it did in turn."""


class TurnTrace(Record):
    """A turn that has ended, or has paused for its caller's tools.

    Turn and start name the trace: what is written again replaces what was there, and its other spans stay.
    """

    name: str
    """Of the agent."""
    agent_id: str
    session_id: str
    """Traces of one session stand together."""
    turn_id: str
    started: AwareDatetime
    ended: AwareDatetime
    messages: Content
    """What the caller sent: a list of messages, or of what tools answered."""
    output: Content = None
    """What the model said at last: a message."""
    tokens: TokenCounts | None = None
    """Of the whole turn; null: what its spans have together."""
    error: str | None = None
    """Why it failed; null: it did not."""
    run_id: str | None = None
    """MLflow run that it belongs to, as an evaluation's turns do."""
    spans: tuple[TraceSpan, ...] = ()
