"""Scoring functions: what benchmarks score answers with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import Response

from llsflow.api.deps import reply
from llsflow.api.openapi import published
from llsflow.errors import NotFoundError
from llsflow.schema.kinds import did_you_mean
from llsflow.schema.scoring import (
    BasicScoringFnParams,
    ListScoringFunctionsResponse,
    RegexParserScoringFnParams,
    ScoringFn,
)

if TYPE_CHECKING:
    from llsflow.scorers import Scorer

router = APIRouter()


@router.get("/v1/scoring-functions", **published(ListScoringFunctionsResponse, says="Every scoring function."))
def list_scoring_functions() -> Response:
    """List what answers can be scored with."""
    from llsflow.scorers import SCORERS

    return reply(ListScoringFunctionsResponse(data=[_view(scorer) for scorer in SCORERS.values()]))


@router.get("/v1/scoring-functions/{scoring_fn_id:path}", **published(ScoringFn, says="The scoring function."))
def get_scoring_function(scoring_fn_id: str) -> Response:
    """Return a scoring function, with the aggregations that it has by itself."""
    from llsflow.scorers import SCORERS

    if scoring_fn_id not in SCORERS:
        known = f"known are {', '.join(SCORERS)}"
        raise NotFoundError(f"no scoring function {scoring_fn_id!r}{did_you_mean(scoring_fn_id, SCORERS)}; {known}")
    return reply(_view(SCORERS[scoring_fn_id]))


def _view(scorer: Scorer) -> ScoringFn:
    # of several kinds of parameters the last says most
    kind = scorer.params_types[-1]
    aggregations = list(scorer.aggregations)
    params = (
        RegexParserScoringFnParams(aggregation_functions=aggregations)
        if kind is RegexParserScoringFnParams
        else BasicScoringFnParams(aggregation_functions=aggregations)
    )
    doc = inspect.getdoc(type(scorer)) or ""
    return ScoringFn(identifier=scorer.id, description=doc.partition("\n\n")[0].replace("\n", " "), params=params)
