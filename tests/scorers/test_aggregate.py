"""The five aggregations: the spec's inner shapes, and input that upstream fails on."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.schema.scoring import AggregationFunctionType as Function
from llsflow.scorers import AGGREGATIONS, aggregate


def rows(*scores: Any) -> list[dict[str, Any]]:
    return [{"score": score} for score in scores]


def result(function: Function, given: list[dict[str, Any]]) -> dict[str, Any]:
    outer = aggregate(given, [function])
    assert list(outer) == [function.value]
    inner = outer[function.value]
    assert function.value in inner
    return inner


def test_every_function_of_the_spec_is_there() -> None:
    assert set(AGGREGATIONS) == set(Function)
    assert all(function.__doc__ for function in AGGREGATIONS.values())


def test_accuracy() -> None:
    inner = result(Function.ACCURACY, rows(1.0, 1.0, 1.0, 0.0))
    low, high = inner.pop("confidence_interval_95")
    assert inner == {"accuracy": 0.75, "num_correct": 3.0, "num_total": 4, "num_unscored": 0}
    assert isinstance(inner["num_correct"], float)
    assert isinstance(inner["num_total"], int)
    # Wilson by hand, z² = 3.8415: (0.75 + 0.4802 ± 1.96·sqrt(0.046875 + 0.06002)) / 1.9604
    assert (low, high) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_accuracy_leaves_out_what_is_no_share() -> None:
    inner = result(Function.ACCURACY, rows(1.0, None, "B", 5.0, float("nan"), -1))
    assert (inner["accuracy"], inner["num_total"], inner["num_unscored"]) == (1.0, 1, 5)


def test_average_reads_numbers_in_text_and_leaves_out_the_rest() -> None:
    inner = result(Function.AVERAGE, rows(1, "4", None, "good", True, float("inf")))
    assert (inner["average"], inner["num_unscored"]) == (2.0, 3)
    assert inner["confidence_interval_95"][0] < 2 < inner["confidence_interval_95"][1]


def test_weighted_average() -> None:
    given: list[dict[str, Any]] = [
        {"score": 1.0, "weight": 3},
        {"score": 0.0},
        {"score": None, "weight": 5},
        {"score": 1, "weight": -1},
    ]
    inner = result(Function.WEIGHTED_AVERAGE, given)
    assert (inner["weighted_average"], inner["num_unscored"]) == (0.75, 2)


def test_weights_of_nothing_give_nothing() -> None:
    inner = result(Function.WEIGHTED_AVERAGE, [{"score": 1.0, "weight": 0}])
    assert (inner["weighted_average"], inner["confidence_interval_95"]) == (None, None)


@pytest.mark.parametrize(("scores", "middle"), [((3, 1, 2), 2.0), ((4, 1, 2, 3), 2.5), ((7, None, "x"), 7.0)])
def test_median(scores: tuple[Any, ...], middle: float) -> None:
    assert result(Function.MEDIAN, rows(*scores))["median"] == middle


def test_categorical_count_names_texts_most_frequent_first() -> None:
    inner = result(Function.CATEGORICAL_COUNT, rows("B", "A", "B", None, 1.0))
    assert inner == {"categorical_count": {"B": 2, "A": 1, "1.0": 1}, "num_unscored": 1}
    assert list(inner["categorical_count"]) == ["B", "A", "1.0"]


@pytest.mark.parametrize("function", Function)
@pytest.mark.parametrize("given", [(), (None, None)])
def test_nothing_scored_is_null_not_a_fault(function: Function, given: tuple[Any, ...]) -> None:
    inner = result(function, rows(*given))
    assert not inner[function.value]  # null, or no categories
    assert inner["num_unscored"] == len(given)
    assert inner.get("confidence_interval_95") is None
