"""Scoring functions and aggregations, by id; to add one: a file here, a line in SCORERS, a test."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.errors import ConfigError, Mistake
from llsflow.schema.scoring import ScoringResult
from llsflow.scorers.aggregate import AGGREGATIONS, aggregate
from llsflow.scorers.base import Params, Scorer
from llsflow.scorers.equality import Equality
from llsflow.scorers.intervals import paired_difference
from llsflow.scorers.math_response import MathResponse
from llsflow.scorers.multiple_choice import MultipleChoice
from llsflow.scorers.subset_of import SubsetOf

SCORERS: dict[str, Scorer] = {
    scorer.id: scorer for scorer in (Equality(), SubsetOf(), MultipleChoice(), MathResponse())
}


def check_params(scorer_id: str, params: Params | None = None) -> list[str]:
    """Return a sentence for each thing that is wrong with a scoring function's id or parameters."""
    if scorer_id not in SCORERS:
        near = difflib.get_close_matches(scorer_id, SCORERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return [f"{scorer_id!r} is no scoring function: {hint}known are {', '.join(SCORERS)}"]
    return SCORERS[scorer_id].check(params)


def score_rows(rows: Sequence[Mapping[str, Any]], scorer_id: str, params: Params | None = None) -> ScoringResult:
    """Return the scores of rows with `expected_answer` and `generated_answer`, and their aggregations.

    A row's own `weight` goes into its scores, where the weighted average reads it.

    Raises:
        ConfigError: the id is unknown or the parameters are not for it.
    """
    mistakes = check_params(scorer_id, params)
    if mistakes:
        raise ConfigError([Mistake(f"scoring function {scorer_id}", message) for message in mistakes])
    scorer = SCORERS[scorer_id]
    score = scorer.prepare(params)
    scored = [score(row) for row in rows]
    for row, result in zip(rows, scored, strict=True):
        if "weight" in row:
            result.setdefault("weight", row["weight"])
    # parameters that name no aggregation say nothing about them: the defaults stay
    names = (params.aggregation_functions if params else ()) or scorer.aggregations
    return ScoringResult(score_rows=scored, aggregated_results=aggregate(scored, names))


__all__ = [
    "AGGREGATIONS",
    "SCORERS",
    "Params",
    "Scorer",
    "aggregate",
    "check_params",
    "paired_difference",
    "score_rows",
]
