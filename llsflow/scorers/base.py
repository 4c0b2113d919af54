"""What a scoring function is: rows in, `score` and a few columns out."""

from __future__ import annotations

import json
import unicodedata
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
"""One row with `generated_answer` and the columns that are declared -> `score`, and whatever explains it."""

EXPECTED = "expected_answer"
"""The column that every format of rows fills, whatever it calls it: see `llsflow.data`."""


class Scorer(ABC):
    """A scoring function: holds no state, so that one request never changes another."""

    id: ClassVar[str]
    params_types: ClassVar[tuple[type[Params], ...]] = (BasicScoringFnParams,)
    """The parameters it takes; others are refused."""
    aggregations: ClassVar[tuple[AggregationFunctionType, ...]] = (AggregationFunctionType.ACCURACY,)
    """Used when the parameters name none."""
    columns: ClassVar[tuple[str, ...]] = (EXPECTED,)
    """Columns that it needs of a row, beside `generated_answer`; a row without one is told before it is answered."""
    optional_columns: ClassVar[tuple[str, ...]] = ()
    """Columns that it reads where a row has them."""

    library: ClassVar[str | None] = None
    """The distribution whose version decides its scores, beside this package's own code."""
    ranks: ClassVar[bool] = False
    """Whether it scores the order that a reranker puts items in, and no text."""

    @abstractmethod
    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row, with all that can be done once already done."""

    def score(self, row: Mapping[str, Any], params: Params | None = None) -> dict[str, Any]:
        """Return `{"score": …}` of one row and the columns that explain it; null: it cannot be scored."""
        return self.prepare(params)(row)

    def lacks(self, row: Mapping[str, Any]) -> list[str]:
        """Return the columns that the row would need, and are absent or null."""
        return [column for column in self.columns if row.get(column) is None]

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
    return as_text(expected), as_text(generated)


def composed(text: str) -> str:
    """Return a text with its letters and accents in composed form (NFC, Unicode Standard Annex #15).

    Texts that look the same then are the same: the tokenizers of many models write no other form, whatever they read.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def unscored(reason: str, **columns: Any) -> dict[str, Any]:
    """Return the scores of a row that cannot be scored, with the reason."""
    return {"score": None, **columns, "unscored": reason}


NO_ANSWER = "expected_answer or generated_answer is absent or null"


def generated_text(row: Mapping[str, Any], *columns: str) -> str:
    """Return the generated answer as text, of a row that must have further columns.

    Raises:
        ValueError: the answer or a column is absent or null.
    """
    missing = [column for column in (*columns, "generated_answer") if row.get(column) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} absent or null")
    return as_text(row["generated_answer"])


def json_column(row: Mapping[str, Any], column: str) -> Any:
    """Return a column that may hold a value or, as a cell of a CSV file must, its JSON.

    Raises:
        ValueError: it is a text that is no JSON.
    """
    value = row.get(column)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{column} is the text {value[:40]!r}, which is no JSON") from None


def as_text(value: Any) -> str:
    """Return a text as it is, another value as its JSON: a cell may hold 5 where a model can only write "5"."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
