"""The text of a generation: where it ends, and how it grows token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNFINISHED = "\ufffd"
"""What a tokenizer writes for bytes that are no character yet."""


def text_of(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], *, special: bool = False) -> str:
    """Return the text of token ids, without special tokens unless they are asked for."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))


def before_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text up to the first of the stop texts in it, and whether there is one."""
    cuts = [at for end in stop if (at := text.find(end)) >= 0]
    return (text[: min(cuts)], True) if cuts else (text, False)


class StopText:
    """Looks for stop texts at the end of what was generated, across the borders of tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        # A token is at least one byte of text, so a stop text of n bytes that the last token completes lies within
        # the last n tokens; the margin is for special tokens between them.
        self.window = max(len(text.encode()) for text in stop) + 8

    def __call__(self, made: Sequence[int]) -> bool:
        """Return whether the last token completed a stop text."""
        tail = text_of(self.tokenizer, made[-self.window :])
        return any(text in tail for text in self.stop)


class GrowingText:
    """The text of a generation while it grows: what was told is never taken back."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop: Sequence[str], *, special: bool = False) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.special = special
        self.told = 0
        """Characters that `more` has returned."""
        self._settled = ""
        self._start = self._end = 0
        """The last tokens whose text is settled: the next ones are read behind them, as a tokenizer may write a token
        at the beginning of a text in another way."""

    def more(self, made: Sequence[int]) -> str:
        """Return what the text has grown by, as far as no token to come can change it or make a stop text of it."""
        known = text_of(self.tokenizer, made[self._start : self._end], special=self.special)
        longer = text_of(self.tokenizer, made[self._start :], special=self.special)
        if len(longer) > len(known) and not longer.endswith(UNFINISHED):
            self._settled += longer[len(known) :]
            self._start, self._end = self._end, len(made)
        return self._tell(self._settled[: len(self._settled) - self._open()])

    def rest(self, whole: str) -> str:
        """Return what is left to tell of the whole text, which has ended."""
        return self._tell(whole)

    def _tell(self, text: str) -> str:
        new = text[self.told :]
        self.told = max(self.told, len(text))
        return new

    def _open(self) -> int:
        """Return how many of the last characters may become a stop text."""
        most = max((len(end) for end in self.stop), default=1) - 1
        tail = self._settled[-most:] if most else ""
        return next(
            (len(tail) - at for at in range(len(tail)) if any(end.startswith(tail[at:]) for end in self.stop)), 0
        )
