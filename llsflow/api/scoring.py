"""Scoring functions: what benchmarks score answers with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import Response

from llsflow.api.deps import reply
from llsflow.api.openapi import published
from llsflow.errors import NotFoundError
from llsflow.schema.kinds import or_known
from llsflow.schema.scoring import (
    BasicScoringFnParams,
    ListScoringFunctionsResponse,
    LLMAsJudgeScoringFnParams,
    RegexParserScoringFnParams,
    ScoringFn,
    ScoringFnParams,
)

if TYPE_CHECKING:
    from llsflow.scorers import Scorer

router = APIRouter()

JUDGE_TO_BE_NAMED = "MODEL_ID"
"""Stands where a request names the judge: none is one by itself."""


@router.get("/v1/scoring-functions", **published(ListScoringFunctionsResponse, says="Every scoring function."))
def list_scoring_functions() -> Response:
    """List what answers can be scored with; a function of an installed package that cannot be loaded says why."""
    from llsflow.scorers import known_ids

    return reply(ListScoringFunctionsResponse(data=[_found(scorer_id) for scorer_id in known_ids()]))


@router.get("/v1/scoring-functions/{scoring_fn_id:path}", **published(ScoringFn, says="The scoring function."))
def get_scoring_function(scoring_fn_id: str) -> Response:
    """Return a scoring function, with the aggregations that it has by itself."""
    from llsflow.scorers import known_ids

    known = known_ids()
    if scoring_fn_id not in known:
        raise NotFoundError(f"no scoring function {scoring_fn_id!r}{or_known(scoring_fn_id, known)}")
    return reply(_found(scoring_fn_id))


def _found(scorer_id: str) -> ScoringFn:
    from llsflow.scorers import find_scorer

    try:
        return _view(find_scorer(scorer_id))
    except LookupError as error:
        return ScoringFn(identifier=scorer_id, description=str(error.args[0]))


def _view(scorer: Scorer) -> ScoringFn:
    doc = inspect.getdoc(type(scorer)) or ""
    reads = {"columns": list(scorer.columns), "optional_columns": list(scorer.optional_columns)}
    says = doc.partition("\n\n")[0].replace("\n", " ")
    return ScoringFn(identifier=scorer.id, description=says, params=_params(scorer), metadata=reads)


def _params(scorer: Scorer) -> ScoringFnParams:
    """Return the parameters that a scoring function has by itself."""
    from llsflow.scorers.judge import Judge

    aggregations = list(scorer.aggregations)
    if isinstance(scorer, Judge):
        return LLMAsJudgeScoringFnParams(
            judge_model=JUDGE_TO_BE_NAMED,
            prompt_template=scorer.template,
            judge_score_regexes=list(scorer.regexes),
            aggregation_functions=aggregations,
        )
    # of several kinds of parameters the last says most
    if scorer.params_types[-1] is RegexParserScoringFnParams:
        return RegexParserScoringFnParams(aggregation_functions=aggregations)
    return BasicScoringFnParams(aggregation_functions=aggregations)
