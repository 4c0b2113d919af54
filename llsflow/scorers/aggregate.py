"""The spec's five aggregations: rows with a `score` -> one result, with its 95 % interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llsflow.schema.scoring import AggregationFunctionType
from llsflow.scorers import intervals

if TYPE_CHECKING:
    from llsflow.scorers.intervals import Values

ScoreRows = Sequence[Mapping[str, Any]]
Aggregation = Callable[[ScoreRows], dict[str, Any]]


def accuracy(rows: ScoreRows) -> dict[str, Any]:
    """Return the share of correct rows, over the rows with a score of 0 to 1."""
    values = intervals.numeric(_scores(rows))
    kept = values[(values >= 0) & (values <= 1)]
    total = len(kept)
    correct = float(kept.sum())
    return {
        "accuracy": correct / total if total else None,
        "num_correct": correct,
        "num_total": total,
        "num_unscored": len(values) - total,
        "confidence_interval_95": intervals.wilson(correct, total),
    }


def average(rows: ScoreRows) -> dict[str, Any]:
    """Return the mean of the scores that are numbers."""
    values, left_out = _numbers(rows)
    return {
        "average": float(values.mean()) if len(values) else None,
        "num_unscored": left_out,
        "confidence_interval_95": intervals.of_mean(values),
    }


def weighted_average(rows: ScoreRows) -> dict[str, Any]:
    """Return the mean of the scores, each counted `weight` times; a row without weight counts once."""
    import numpy as np

    values = intervals.numeric(_scores(rows))
    weights = intervals.numeric([1.0 if row.get("weight") is None else row["weight"] for row in rows])
    kept = np.isfinite(values) & np.isfinite(weights) & (weights >= 0)
    values, weights = values[kept], weights[kept]
    total = float(weights.sum())
    return {
        "weighted_average": float((values * weights).sum()) / total if total else None,
        "num_unscored": len(rows) - len(values),
        "confidence_interval_95": intervals.of_mean(values, weights) if total else None,
    }


def median(rows: ScoreRows) -> dict[str, Any]:
    """Return the middle score, of those that are numbers."""
    import numpy as np

    values, left_out = _numbers(rows)
    return {
        "median": float(np.median(values)) if len(values) else None,
        "num_unscored": left_out,
        "confidence_interval_95": intervals.of_median(values),
    }


def categorical_count(rows: ScoreRows) -> dict[str, Any]:
    """Return how often each score occurs, the most frequent first."""
    scores = [score for score in _scores(rows) if score is not None]
    counts = Counter(str(score) for score in scores)
    return {"categorical_count": dict(counts.most_common()), "num_unscored": len(rows) - len(scores)}


def aggregate(rows: ScoreRows, functions: Iterable[AggregationFunctionType]) -> dict[str, dict[str, Any]]:
    """Return `{metric: {metric: value, …}}` of the rows' scores, one entry for each function."""
    return {str(name): AGGREGATIONS[name](rows) for name in functions}


def _numbers(rows: ScoreRows) -> tuple[Values, int]:
    import numpy as np

    values = intervals.numeric(_scores(rows))
    kept = values[np.isfinite(values)]
    return kept, len(values) - len(kept)


def _scores(rows: ScoreRows) -> list[Any]:
    return [row["score"] for row in rows]


AGGREGATIONS: dict[AggregationFunctionType, Aggregation] = {
    AggregationFunctionType.AVERAGE: average,
    AggregationFunctionType.WEIGHTED_AVERAGE: weighted_average,
    AggregationFunctionType.MEDIAN: median,
    AggregationFunctionType.CATEGORICAL_COUNT: categorical_count,
    AggregationFunctionType.ACCURACY: accuracy,
}
