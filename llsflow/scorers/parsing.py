"""Reading an answer out of a text with regexes that come from users: checked first, run with a time limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from llsflow.schema.scoring import BasicScoringFnParams, RegexParserScoringFnParams
from llsflow.scorers.base import Params, Scorer

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped]

TIME_LIMIT_SECONDS = 1.0
"""Longest search for one answer; a pattern that backtracks without end stops here."""


class RegexTimeoutError(Exception):
    """A search took longer than the time limit; the text names the regex."""


class RegexScorer(Scorer):
    """A scoring function that first reads the answer with a regex."""

    params_types = (BasicScoringFnParams, RegexParserScoringFnParams)
    default_regexes: ClassVar[tuple[str, ...]] = ()
    """Used when the parameters name none."""

    def regexes(self, params: Params | None) -> tuple[str, ...]:
        """Return the regexes in force: the parameters' own, else the default ones."""
        own = params.parsing_regexes if isinstance(params, RegexParserScoringFnParams) else ()
        return tuple(own) or self.default_regexes

    def check(self, params: Params | None) -> list[str]:
        """Return a sentence for each thing that is wrong with the parameters, regexes included."""
        own = params.parsing_regexes if isinstance(params, RegexParserScoringFnParams) else ()
        return super().check(params) + [message for text in own for message in check_regex(text)]


def check_regex(text: str) -> list[str]:
    """Return what is wrong with a regex, in a sentence; empty when it can be used."""
    import regex

    try:
        pattern = compiled(text)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        return [f"{text!r} is not a regex ({error}): mend it, for example 'Answer: (.+)'"]
    if pattern.groups == 0:
        return [f"{text!r} has no group: put the answer in brackets, for example 'Answer: (.+)'"]
    return []


class Parser:
    """Finds the answer: the first regex that matches, its first named group or else group 1.

    `last`: of several matches of a regex the last one counts, else the first.
    """

    def __init__(self, regexes: Sequence[str], *, last: bool = False) -> None:
        self._last = last
        self._patterns = [(text, compiled(text), _group(compiled(text))) for text in regexes]

    def __call__(self, text: str) -> str | None:
        """Return the answer that stands in `text`, stripped; None when no regex finds one.

        Raises:
            RegexTimeoutError: a search took longer than TIME_LIMIT_SECONDS.
        """
        for source, pattern, group in self._patterns:
            try:
                match = self._match(pattern, text)
            except TimeoutError as error:
                raise RegexTimeoutError(f"regex {source!r} took over {TIME_LIMIT_SECONDS:g} s") from error
            # a group that took no part in the match is None: the next regex may find it
            if match is not None and match.group(group) is not None:
                return str(match.group(group)).strip()
        return None

    def _match(self, pattern: regex.Pattern[str], text: str) -> regex.Match[str] | None:
        if not self._last:
            return pattern.search(text, timeout=TIME_LIMIT_SECONDS, concurrent=True)
        found = None
        for found in pattern.finditer(text, timeout=TIME_LIMIT_SECONDS, concurrent=True):  # noqa: B007
            pass
        return found


@lru_cache(maxsize=256)
def compiled(text: str) -> regex.Pattern[str]:
    """Return a regex that is ready to search."""
    import regex

    return regex.compile(text)


def _group(pattern: regex.Pattern[str]) -> int:
    named: Mapping[str, Any] = pattern.groupindex
    return min(named.values()) if named else 1
