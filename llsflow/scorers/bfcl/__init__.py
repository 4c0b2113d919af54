"""basic::bfcl."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import Params, Scorer, ScoreRow, generated_text, json_column, unscored
from llsflow.scorers.bfcl.calls import LANGUAGES, UnreadableError, read_calls
from llsflow.scorers.bfcl.literals import UnknownValueError
from llsflow.scorers.bfcl.matching import Function, match_calls

COLUMNS = ("function", "ground_truth")
OTHER_CHECKS = ("multi_turn", "exec", "rest", "sql", "memory", "web_search", "chatable", "format_sensitivity")
"""Categories of the leaderboard whose answers are run, or read in another way."""


class Bfcl(Scorer):
    """1.0 when the generated function calls are those of the ground truth, compared as syntax trees; else 0.0.

    `function` holds the functions' descriptions, `ground_truth` one record for each call, `{name: {parameter: [accepted
    values]}}`, where "" among them says that the parameter may be left out; both may be JSON. The category is
    `test_category`, else that of `id` ("live_parallel_12-3-0"): "irrelevance" wants no call, "relevance" any call, the
    others the ground truth's calls in any order. The language is `language`, else the category's, else Python. Answers
    are calls of that language, in a list or not, or JSON (`[{"name": …, "arguments": {…}}]`); nothing is run.
    `error` says why a row scores 0.0.

    Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard (BFCL)", ICML 2025, and its repository's rules
    of the AST check (github.com/ShishirPatil/gorilla).
    """

    id = "basic::bfcl"
    columns = COLUMNS
    optional_columns = ("id", "language", "test_category")

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        return _score

    def lacks(self, row: Mapping[str, Any]) -> list[str]:
        """Return the columns that the row would need; whether calls are relevant is known without a ground truth."""
        return [] if "relevance" in _category(row) else super().lacks(row)


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    category = _category(row)
    try:
        answer = generated_text(row, *(() if "relevance" in category else COLUMNS))
        if any(word in category for word in OTHER_CHECKS):
            raise ValueError(f"category {category} is not compared as syntax trees")
        error = _error(row, answer, category, _language(row, category))
    except (ValueError, UnknownValueError) as reason:
        return unscored(str(reason))
    return {"score": 1.0} if error is None else {"score": 0.0, "error": error}


def _error(row: Mapping[str, Any], answer: str, category: str, language: str) -> str | None:
    """Return why the answer is wrong; None: it is right.

    Raises:
        ValueError, UnknownValueError: the row cannot be scored, and why.
    """
    try:
        calls = read_calls(answer, language)
    except UnreadableError as unreadable:
        return None if "irrelevance" in category else f"no function calls can be read: {unreadable}"
    if "irrelevance" in category:
        return f"calls {calls[0].name}, where no function serves" if calls else None
    if "relevance" in category:
        return None if calls else "calls no function"
    return match_calls(_functions(row), calls, _ground_truth(row), language)


def _category(row: Mapping[str, Any]) -> str:
    given = row.get("test_category")
    return str(given if given is not None else re.sub(r"_[0-9_-]+$", "", str(row.get("id") or ""))).lower()


def _language(row: Mapping[str, Any], category: str) -> str:
    """Return the language in small letters.

    Raises:
        ValueError: it is none that is read.
    """
    given = row.get("language")
    if given is None:
        # "javascript" holds "java"
        found = [name for name in LANGUAGES if name in category]
        return max(found, key=len, default="python")
    if str(given).lower() not in LANGUAGES:
        raise ValueError(f"language is {str(given)[:40]!r}: known are {', '.join(LANGUAGES)}")
    return str(given).lower()


def _functions(row: Mapping[str, Any]) -> dict[str, Function]:
    described = json_column(row, "function")
    described = described if isinstance(described, list) else [described]
    functions = [Function.of(one) for one in described]
    return {function.name: function for function in functions}


def _ground_truth(row: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    wanted = json_column(row, "ground_truth")
    wanted = [wanted] if isinstance(wanted, Mapping) else wanted
    if not isinstance(wanted, list):
        raise ValueError("ground_truth is no list of calls")
    found = []
    for call in wanted:
        if not isinstance(call, Mapping) or len(call) != 1 or not isinstance(next(iter(call.values())), Mapping):
            raise ValueError("ground_truth holds what is no {name: {parameter: [accepted values]}}")
        found.append(next(iter(call.items())))
    return found


__all__ = ["Bfcl"]
