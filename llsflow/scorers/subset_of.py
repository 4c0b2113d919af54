"""basic::subset_of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import NO_ANSWER, Params, Scorer, ScoreRow, answers, composed, unscored


class SubsetOf(Scorer):
    """1.0 when the expected answer stands somewhere in the generated answer, both in composed form (NFC); else 0.0.

    An empty expected answer would stand in every text: it is met by an empty answer alone.
    """

    id = "basic::subset_of"

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        return _score


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    pair = answers(row)
    if pair is None:
        return unscored(NO_ANSWER)
    expected, generated = composed(pair[0]), composed(pair[1])
    met = expected in generated if expected.strip() else not generated.strip()
    return {"score": 1.0 if met else 0.0}
