"""What a chat completion says, whole or in the events of a stream: text, reasoning, calls, and why it ended.

Source: platform.openai.com/docs/api-reference/chat; reasoning as DeepSeek, vLLM, OpenRouter and Ollama spell it, and as
Mistral has it within the content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llsflow.errors import UnavailableError
from llsflow.models.calls import Calls
from llsflow.models.events import failure_of
from llsflow.models.generation import Finish
from llsflow.schema.inference import StopReason, ToolCall

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a message that hold what the model thought; servers that have two of them say the same in both."""

THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
"""Types of parts of a content that are no part of the answer."""


_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset(
    {
        "content_filter",
        "content_filtered",
        "safety",
        "sensitive",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
    }
)
_FAILED = frozenset(
    {"error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource", "timeout", "other"}
)
"""Values of finish_reason beside the protocol's, in lower case: as vLLM, DeepSeek, Mistral and Gemini have them."""


class BrokenOffError(UnavailableError):
    """An answer that ended before it was whole; another try may bring it."""


@dataclass
class Said:
    """What the model has said so far."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Tools by what they are called at the endpoint."""
    taken: Iterable[str] = ()
    """Ids of earlier calls, which no call of this answer gets."""
    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    """Once it has ended."""
    finish: str | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    _calls: Calls = field(default_factory=Calls)
    _begun: bool = False
    _half: str = ""
    """The first half of a character whose second half comes with the next event."""

    @property
    def stop_reason(self) -> StopReason:
        """Return why it ended."""
        if self.ending == "length":
            return StopReason.OUT_OF_TOKENS
        return StopReason.END_OF_MESSAGE if self._calls else StopReason.END_OF_TURN

    @property
    def ending(self) -> Finish:
        """Return why it ended, as a generation has it."""
        finish = self._finish
        return "length" if finish in _CUT else "content_filter" if finish in _FILTERED else "stop"

    @property
    def _finish(self) -> str:
        return str(self.finish or "").lower().removeprefix("finish_reason_")

    def take(self, event: Any) -> tuple[str, str]:
        """Take an event of a stream or a whole completion in, and return what text and what of calls it adds.

        Raises:
            BrokenOffError: it tells of a failure.
            UnavailableError: it is none of the protocol's.
        """
        try:
            failure = None if event.get("choices") and not event.get("error") else failure_of(event)
            self._look_for_failure(failure and failure.message)
            if usage := event.get("usage"):
                self.tokens = {name: value for name, value in usage.items() if isinstance(value, int)}
            text = of_calls = ""
            for choice in event.get("choices") or ():
                if choice.get("index") in (0, None):
                    more, of_more_calls = self._choice(choice)
                    text, of_calls = text + more, of_calls + of_more_calls
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise UnavailableError("the endpoint sends something that is no chat completion") from error
        return text, of_calls

    def end(self) -> None:
        """Take the end in: the calls are whole now.

        Raises:
            BrokenOffError: the endpoint has sent nothing that answers.
        """
        if self._finish in _FAILED:
            raise BrokenOffError(f"the model failed in the middle of its answer: finish_reason {self.finish!r}")
        if not self._begun:
            raise BrokenOffError("the endpoint sent an answer without a choice of the index 0")
        if self._half:
            self.text += _readable(self._half)
        if self._calls:
            self.calls = self._calls.all(self.names, self.taken)

    def _choice(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        self._begun = True
        self._look_for_failure(choice.get("error"))
        self.finish = choice.get("finish_reason") or self.finish
        message = choice.get("delta") or choice.get("message") or {}
        text, thought = text_and_reasoning(message.get("content"))
        self.reasoning += thought or _reasoning(message)
        text = self._whole_characters(text or str(message.get("refusal") or ""))
        self.text += text
        of_calls = ""
        if called := message.get("tool_calls"):
            of_calls = self._calls.take(called)
        elif older := message.get("function_call"):  # some servers send a call in both ways
            of_calls += self._calls.take([{"function": older}])
        return text, of_calls

    def _look_for_failure(self, error: Any) -> None:
        if error:
            message = error.get("message") if isinstance(error, dict) else error
            raise BrokenOffError(f"the model failed in the middle of its answer: {message}")

    def _whole_characters(self, text: str) -> str:
        """Return text without halves of characters, as JSON's \\ud83d is one; a last half waits for its other."""
        if text.isascii() and not self._half:
            return text
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _readable(text)


def text_and_reasoning(content: Any) -> tuple[str, str]:
    """Return what of a message's content is text, and what is reasoning; a part that is neither leaves its type."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if isinstance(content, list):
        found = [text_and_reasoning(one) for one in content]
        return "".join(text for text, _ in found), "".join(thought for _, thought in found)
    if not isinstance(content, dict):
        return json.dumps(content), ""
    kind = content.get("type")
    if kind in THOUGHTS:
        text, thought = text_and_reasoning(next(filter(None, map(content.get, (kind, "text", "summary"))), None))
        return "", thought + text
    for key in ("text", "content", "refusal"):
        if key in content and (kind or len(content) == 1):
            return text_and_reasoning(content[key])
    return (f"[{kind}, which is no text]" if kind else json.dumps(content, ensure_ascii=False)), ""


def _reasoning(message: Mapping[str, Any]) -> str:
    for key in REASONING:
        if message.get(key):
            return "".join(text_and_reasoning(message[key]))
    return ""


def _readable(text: str) -> str:
    """Return text that can be written in UTF-8: halves of characters that belong together are one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
