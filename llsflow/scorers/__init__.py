"""Scoring functions and aggregations, by id; to add one: a file here, a line in SCORERS, a test."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from llsflow.errors import ConfigError, Mistake
from llsflow.schema.scoring import ScoringResult
from llsflow.schema.thoughts import without_thoughts
from llsflow.scorers.aggregate import AGGREGATIONS, aggregate
from llsflow.scorers.base import EXPECTED, Params, Scorer, ScoreRow, unscored
from llsflow.scorers.bfcl import Bfcl
from llsflow.scorers.braintrust import METRICS
from llsflow.scorers.docvqa import DocVqa
from llsflow.scorers.equality import Equality
from llsflow.scorers.ifeval import IfEval
from llsflow.scorers.intervals import paired_difference
from llsflow.scorers.judge import Ask, Judge, JudgeBase, SimpleQaJudge
from llsflow.scorers.math_response import MathResponse
from llsflow.scorers.multiple_choice import MultipleChoice
from llsflow.scorers.own import OwnScorerError, check_own, guarded, own_code_digest, own_ids, own_scorer
from llsflow.scorers.ranking import Mrr, Ndcg
from llsflow.scorers.subset_of import SubsetOf

logger = logging.getLogger("llsflow")

SCORERS: dict[str, Scorer] = {
    scorer.id: scorer
    for scorer in (
        *(Equality(), SubsetOf(), MultipleChoice(), MathResponse(), IfEval(), DocVqa(), Bfcl()),
        *(JudgeBase(), SimpleQaJudge()),
        *METRICS,
        *(Ndcg(), Mrr()),
    )
}


def find_scorer(scorer_id: str) -> Scorer:
    """Return the scoring function with this id: one of SCORERS, else one of an installed package.

    Raises:
        LookupError: there is none, or it cannot be loaded; the text says which ids are known, or why.
    """
    if scorer_id in SCORERS:
        return SCORERS[scorer_id]
    try:
        own = own_scorer(scorer_id)
    except OwnScorerError as error:
        raise LookupError(str(error)) from error
    if own is not None:
        return own
    known = known_ids()
    near = difflib.get_close_matches(scorer_id, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise LookupError(f"{scorer_id!r} is no scoring function: {hint}known are {', '.join(known)}")


def outside_code(scorer_ids: Sequence[str]) -> dict[str, str]:
    """Return what decides scores beside this package: the sha256 (hex) of one's own code, a library's version."""
    own = {name: own_code_digest(find_scorer(name)) for name in scorer_ids if name not in SCORERS}
    libraries = {name: SCORERS[name].library for name in scorer_ids if name in SCORERS}
    return {**own, **{name: f"{library} {version(library)}" for name, library in libraries.items() if library}}


def known_ids() -> list[str]:
    """Return the ids of SCORERS, and after them those that installed packages add."""
    return [*SCORERS, *(name for name in own_ids() if name not in SCORERS)]


def check_known(scorer_id: str) -> list[str]:
    """Return a sentence for each thing that is wrong with a scoring function whose parameters come later."""
    try:
        judge = isinstance(find_scorer(scorer_id), Judge)
    except LookupError as error:
        return [str(error.args[0])]
    return [] if judge else check_params(scorer_id)


def check_params(scorer_id: str, params: Params | None = None) -> list[str]:
    """Return a sentence for each thing that is wrong with a scoring function's id or parameters."""
    try:
        scorer = find_scorer(scorer_id)
    except LookupError as error:
        return [str(error.args[0])]
    return scorer.check(params) if scorer_id in SCORERS else check_own(scorer, params)


def score_rows(
    rows: Sequence[Mapping[str, Any]], scorer_id: str, params: Params | None = None, ask: Ask | None = None
) -> ScoringResult:
    """Return the scores of rows with `generated_answer` and the scoring function's columns, and their aggregations.

    A row's own `weight` goes into its scores, where the weighted average reads it, unless the function sets one.

    Raises:
        ConfigError: the id is unknown or the parameters are not for it, or it needs a judge and none can be asked here.
    """
    mistakes = check_params(scorer_id, params)
    if mistakes:
        raise ConfigError([Mistake(f"scoring function {scorer_id}", message) for message in mistakes])
    scorer = find_scorer(scorer_id)
    strips = params is None or params.strip_reasoning
    scored = _scored(scorer, [_answer_alone(row) for row in rows] if strips else rows, params, ask)
    for row, result in zip(rows, scored, strict=True):
        if "weight" in row:
            result.setdefault("weight", row["weight"])
    # parameters that name no aggregation say nothing about them: the defaults stay
    names = (params.aggregation_functions if params else ()) or scorer.aggregations
    return ScoringResult(score_rows=scored, aggregated_results=aggregate(scored, names))


def _scored(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]], params: Params | None, ask: Ask | None
) -> list[dict[str, Any]]:
    if isinstance(scorer, Judge):
        if ask is None and rows:
            raise ConfigError([Mistake(f"scoring function {scorer.id}", "no judge can be asked here")])
        return scorer.judged(rows, params, ask) if ask else []
    try:
        score = scorer.prepare(params) if scorer.id in SCORERS else guarded(scorer, params)
    except OwnScorerError as error:
        raise ConfigError([Mistake(f"scoring function {scorer.id}", str(error))]) from error
    return [_score_of(score, row) for row in rows]


def _answer_alone(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row with its answer without the reasoning before it."""
    generated = row.get("generated_answer")
    if not isinstance(generated, str) or (answer := without_thoughts(generated)) == generated:
        return row
    return {**row, "generated_answer": answer}


def _score_of(score: ScoreRow, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of a row; one on which the scoring function fails is unscored and sinks no other."""
    try:
        return score(row)
    except Exception as error:  # whatever it is, the other rows' scores stay right
        logger.warning("a row could not be scored", exc_info=True)
        return unscored(f"the scoring function failed on this row: {type(error).__name__}: {error}")


__all__ = [
    "AGGREGATIONS",
    "EXPECTED",
    "SCORERS",
    "Ask",
    "Params",
    "ScoreRow",
    "Scorer",
    "aggregate",
    "check_known",
    "check_params",
    "find_scorer",
    "known_ids",
    "outside_code",
    "paired_difference",
    "score_rows",
    "unscored",
]
