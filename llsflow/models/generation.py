"""What a model answered, whichever kind of model it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Finish = Literal["stop", "length", "content_filter"]
"""stop: the model or a stop text ended it; length: max_tokens or the context did; content_filter: its server did."""

FILTERED = "the server's content filter withheld the answer"
"""Why such an answer is not scored."""


@dataclass(frozen=True)
class Generation:
    """What the model answered to one conversation."""

    text: str
    """Without special tokens and without the text that ended it."""
    tokens: int
    """Tokens generated, the end mark included; 0: an endpoint did not say."""
    finish: Finish
    prompt: str
    """The conversation as the chat template rendered it, or as an endpoint was sent it, in JSON."""
    error: str | None = None
    """Why there is no answer."""
    passing: bool = False
    """That may pass: the server did not answer, or was too busy."""
    steps: tuple[dict[str, Any], ...] = ()
    """What an agent did on the way, as the specification has steps; of a model's own answer none."""
    reasoning: str = ""
    """What an endpoint's model thought before its answer, where its server sends that apart."""

    def record(self) -> dict[str, Any]:
        """Return it as an EvaluateResponse holds it."""
        said: dict[str, Any] = {"generated_answer": None if self.error else self.text}
        if self.error:
            said["error"] = self.error
        if self.reasoning:
            said["reasoning_content"] = self.reasoning
        if self.finish != "stop":
            said["finish_reason"] = self.finish
        if self.steps:
            said["steps"] = list(self.steps)
        return said
