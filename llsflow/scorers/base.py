"""What a scoring function is: rows in, `score` and a few columns out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from llsflow.schema.scoring import (
    AggregationFunctionType,
    BasicScoringFnParams,
    LLMAsJudgeScoringFnParams,
    RegexParserScoringFnParams,
)

Params = BasicScoringFnParams | RegexParserScoringFnParams | LLMAsJudgeScoringFnParams
ScoreRow = Callable[[Mapping[str, Any]], dict[str, Any]]
"""One row with `expected_answer` and `generated_answer` -> `score`, and whatever explains it."""


class Scorer(ABC):
    """A scoring function: holds no state, so that one request never changes another."""

    id: ClassVar[str]
    params_types: ClassVar[tuple[type[Params], ...]] = (BasicScoringFnParams,)
    """The parameters it takes; others are refused."""
    aggregations: ClassVar[tuple[AggregationFunctionType, ...]] = (AggregationFunctionType.ACCURACY,)
    """Used when the parameters name none."""

    @abstractmethod
    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row, with all that can be done once already done."""

    def score(self, row: Mapping[str, Any], params: Params | None = None) -> dict[str, Any]:
        """Return `{"score": …}` of one row and the columns that explain it; null: it cannot be scored."""
        return self.prepare(params)(row)

    def check(self, params: Params | None) -> list[str]:
        """Return a sentence for each thing that is wrong with the parameters."""
        if params is None or isinstance(params, self.params_types):
            return []
        allowed = " or ".join(str(kind.model_fields["type"].default) for kind in self.params_types)
        why = "it calls no judge" if isinstance(params, LLMAsJudgeScoringFnParams) else "it reads no answer by regex"
        return [f"{self.id} does not take type {params.type!r} ({why}): allowed is {allowed}"]


def answers(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the expected and the generated answer as text; None when one of them is absent or null."""
    expected, generated = row.get("expected_answer"), row.get("generated_answer")
    if type(expected) is str and type(generated) is str:
        return expected, generated
    if expected is None or generated is None:
        return None
    return _text(expected), _text(generated)


def unscored(reason: str, **columns: Any) -> dict[str, Any]:
    """Return the scores of a row that cannot be scored, with the reason."""
    return {"score": None, **columns, "unscored": reason}


NO_ANSWER = "expected_answer or generated_answer is absent or null"


def _text(value: Any) -> str:
    # a CSV or JSON cell may hold 5 where a model can only write "5"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
