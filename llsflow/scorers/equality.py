"""basic::equality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import NO_ANSWER, Params, Scorer, ScoreRow, answers, composed, unscored


class Equality(Scorer):
    """1.0 when the generated answer is the expected answer, both in composed form (NFC); else 0.0."""

    id = "basic::equality"

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        return _score


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    pair = answers(row)
    if pair is None:
        return unscored(NO_ANSWER)
    return {"score": 1.0 if composed(pair[0]) == composed(pair[1]) else 0.0}
