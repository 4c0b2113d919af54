"""The five aggregations: the spec's inner shapes, and input that upstream fails on."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


MIXED = (1, "0.5", True, "yes", "", None, float("nan"), "inf", [1.0], {"a": 1}, 10**400, "1e400")
"""Of these are numbers: 1, "0.5" and True, which is 1."""


@pytest.mark.parametrize(
    ("function", "value", "unscored"),
    [
        (Function.ACCURACY, 2.5 / 3, 9),
        (Function.AVERAGE, 2.5 / 3, 9),
        (Function.WEIGHTED_AVERAGE, 2.5 / 3, 9),
        (Function.MEDIAN, 1.0, 9),
        (Function.CATEGORICAL_COUNT, 11, 1),
    ],
)
def test_texts_numbers_booleans_and_what_is_neither(function: Function, value: float, unscored: int) -> None:
    inner = result(function, rows(*MIXED))
    found = inner[function.value]
    assert (sum(found.values()) if isinstance(found, dict) else found) == pytest.approx(value)
    assert inner["num_unscored"] == unscored


@pytest.mark.parametrize("function", [Function.AVERAGE, Function.CATEGORICAL_COUNT])
@pytest.mark.parametrize("score", [[1.0, 2.0], [], "x", None])
def test_scores_of_one_kind_that_are_no_numbers(function: Function, score: Any) -> None:
    """Lists of one length look like a table to numpy."""
    inner = result(function, rows(score, score, score))
    left_out = 3 if function is not Function.CATEGORICAL_COUNT or score is None else 0
    assert inner["num_unscored"] == left_out
    assert json.loads(json.dumps(inner, allow_nan=False)) == inner


@pytest.mark.parametrize(
    ("weights", "value", "unscored"),
    [
        ((None, None), 0.5, 0),
        ((3, None), 0.75, 0),
        (("3", 1), 0.75, 0),
        (("many", 1), 0.0, 1),
        ((float("inf"), 1), 0.0, 1),
        (([1], [1]), None, 2),
        ((0, 0), None, 0),
    ],
)
def test_weights_that_are_missing_or_no_numbers(weights: tuple[Any, ...], value: float | None, unscored: int) -> None:
    given = [{"score": score, "weight": weight} for score, weight in zip((1.0, 0.0), weights, strict=True)]
    inner = result(Function.WEIGHTED_AVERAGE, given)
    assert (inner["weighted_average"], inner["num_unscored"]) == (value, unscored)


SCORES = st.lists(
    st.none()
    | st.booleans()
    | st.floats(-1e100, 1e100)
    | st.text(max_size=3)
    | st.integers(-(10**9), 10**9)
    | st.lists(st.integers())
)


@given(SCORES, st.sampled_from(list(Function)), st.randoms())
def test_every_row_counts_or_is_counted_as_left_out(scores: list[Any], function: Function, random: Random) -> None:
    inner = result(function, rows(*scores))
    assert 0 <= inner["num_unscored"] <= len(scores)
    assert json.loads(json.dumps(inner, allow_nan=False)) == inner
    if function in (Function.ACCURACY, Function.MEDIAN, Function.CATEGORICAL_COUNT):
        shuffled = random.sample(scores, len(scores))
        assert result(function, rows(*shuffled))[function.value] == pytest.approx(inner[function.value])
