"""Intervals against closed forms, published values, and their own promise: 95 % coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.scorers import intervals
from llsflow.scorers.intervals import Z95, of_mean, of_median, paired_difference, wilson


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx([low, high], abs=5e-5)


@given(st.integers(1, 10_000), st.data())
@settings(max_examples=100)
def test_wilson_stays_within_0_and_1_around_the_share(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    interval = wilson(correct, total)
    assert interval is not None
    assert 0 <= interval[0] <= correct / total <= interval[1] <= 1
    mirrored = wilson(total - correct, total)
    assert mirrored is not None
    assert mirrored == pytest.approx([1 - interval[1], 1 - interval[0]])


def test_nothing_to_measure_gives_no_interval() -> None:
    empty = np.array([])
    assert wilson(0, 0) is None
    assert of_mean(empty) is None
    assert of_mean(np.array([1.0])) is None
    assert of_median(empty) is None


def test_mean_in_closed_form() -> None:
    # mean 2.5, variance 5/3 with n-1, error sqrt(5/3/4), three degrees of freedom
    half = 3.182446 * math.sqrt(5 / 12)
    assert of_mean(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx([2.5 - half, 2.5 + half])
    many = np.arange(1001.0)
    half = Z95 * many.std(ddof=1) / math.sqrt(1001)
    assert of_mean(many) == pytest.approx([500 - half, 500 + half])


def test_a_mean_of_shares_lies_between_0_and_1() -> None:
    interval = of_mean(np.array([1.0] * 18 + [0.9, 0.2]))
    assert interval is not None
    assert 0.5 < interval[0] < 0.955 < interval[1] <= 1.0
    assert of_mean(np.full(20, 0.5)) == [0.5, 0.5]


def test_the_interval_of_a_skewed_mean_leans_to_where_the_tail_is() -> None:
    """20 rows of a lognormal distribution, whose mean the normal interval holds 84 times in 100."""
    draw, inside, trials = np.random.default_rng(2), 0, 300
    for _ in range(trials):
        interval = of_mean(draw.lognormal(size=20))
        assert interval is not None
        inside += interval[0] <= math.exp(0.5) <= interval[1]
    assert inside / trials > 0.89


def test_equal_weights_give_the_interval_of_the_plain_mean() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert of_mean(values, np.full(50, 3.0)) == pytest.approx(of_mean(values))


def test_median_ranks() -> None:
    # n = 100: half width 1.96 * 10 / 2 = 9.8, ranks ceil(40.2) = 41 and ceil(59.8) = 60
    assert of_median(np.arange(1.0, 101.0)) == [41.0, 60.0]
    assert of_median(np.array([3.0, 1.0])) == [1.0, 3.0]


@pytest.mark.parametrize("n", [30, 80])
def test_intervals_hold_the_true_value_about_95_times_in_100(n: int) -> None:
    draw, inside = np.random.default_rng(1), np.zeros(4)
    trials = 400
    for _ in range(trials):
        values = draw.normal(size=n)
        correct = int((draw.random(n) < 0.3).sum())
        for i, (interval, truth) in enumerate(
            [
                (wilson(correct, n), 0.3),
                (of_mean(values), 0.0),
                (of_mean(values, draw.random(n) + 0.5), 0.0),
                (of_median(values), 0.0),
            ]
        ):
            assert interval is not None
            inside[i] += interval[0] <= truth <= interval[1]
    assert np.all(inside / trials > 0.91), inside / trials
    assert np.all(inside / trials < 0.98), inside / trials


class TestPairedDifference:
    def test_the_same_scores_differ_by_nothing(self) -> None:
        scores = [0.1, 0.5, 1.0]
        assert paired_difference(scores, scores) == {
            "difference": 0.0,
            "confidence_interval_95": [0.0, 0.0],
            "num_pairs": 3,
            "num_unscored": 0,
        }

    def test_all_wrong_before_and_all_right_after_by_hand(self) -> None:
        # Wilson: [0, z2 / (n + z2)] and [n / (n + z2), 1]; no correlation; below = sqrt(2) z2 / (n + z2), above = 0
        interval = paired_difference([0.0] * 200, [1.0] * 200)["confidence_interval_95"]
        end = Z95**2 / (200 + Z95**2)
        assert interval == pytest.approx([1 - math.sqrt(2) * end, 1.0])

    def test_shares_of_the_same_rows_by_hand(self) -> None:
        # 10 right in both, 2 only before, 6 only after, 4 in neither: p1 = 12/22, p2 = 16/22
        base = [1.0] * 10 + [1.0] * 2 + [0.0] * 6 + [0.0] * 4
        tuned = [1.0] * 10 + [0.0] * 2 + [1.0] * 6 + [0.0] * 4
        (l1, u1), (l2, u2) = wilson(12, 22), wilson(16, 22)  # type: ignore[misc]
        p1, p2, phi = 12 / 22, 16 / 22, (10 * 4 - 2 * 6 - 11) / math.sqrt(12 * 10 * 16 * 6)
        below = math.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
        above = math.sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2)
        expected = [p2 - p1 - below, p2 - p1 + above]
        assert paired_difference(base, tuned)["confidence_interval_95"] == pytest.approx(expected)

    def test_the_interval_of_shares_holds_what_it_promises(self) -> None:
        draw, inside, trials = np.random.default_rng(5), 0, 400
        for _ in range(trials):
            base = (draw.random(80) < 0.4).astype(float)
            tuned = np.where(draw.random(80) < 0.5, base, (draw.random(80) < 0.7).astype(float))
            low, high = paired_difference(list(base), list(tuned))["confidence_interval_95"]
            inside += low <= 0.15 <= high  # 0.5 · 0.4 + 0.5 · 0.7 - 0.4
        assert 0.92 <= inside / trials <= 0.99

    def test_the_sign_is_tuned_minus_base(self) -> None:
        assert paired_difference([0.0, 0.0], [1.0, 0.0])["difference"] == 0.5

    def test_pairs_that_miss_a_score_are_left_out_and_counted(self) -> None:
        result = paired_difference([0.0, None, "?", 1.0], [1.0, 1.0, 1.0, None])
        assert (result["difference"], result["num_pairs"], result["num_unscored"]) == (1.0, 1, 3)

    def test_no_pairs(self) -> None:
        result = paired_difference([], [])
        assert (result["difference"], result["confidence_interval_95"], result["num_pairs"]) == (None, None, 0)

    def test_other_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="1 base scores and 2 tuned"):
            paired_difference([1.0], [1.0, 0.0])

    def test_a_seed_repeats_and_another_does_not(self) -> None:
        draw = np.random.default_rng(0)
        base, tuned = list(draw.random(40)), list(draw.random(40))
        one = paired_difference(base, tuned, seed=1)
        assert one == paired_difference(base, tuned, seed=1)
        assert one != paired_difference(base, tuned, seed=2)

    def test_pairing_narrows_the_interval(self) -> None:
        # tuned is base plus 0.1 in every row: the difference is certain however far the rows are apart
        base = list(np.random.default_rng(0).random(100))
        interval = paired_difference(base, [score + 0.1 for score in base])["confidence_interval_95"]
        assert interval == pytest.approx([0.1, 0.1])

    @pytest.mark.parametrize("chunk", [10**9, 5_000])
    def test_the_bootstrap_agrees_with_the_normal_interval(self, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(intervals, "_CHUNK", chunk)
        draw = np.random.default_rng(3)
        base, tuned = draw.random(400), draw.random(400) + 0.2
        result = paired_difference(list(base), list(tuned))
        assert result["confidence_interval_95"] == pytest.approx(of_mean(tuned - base), abs=0.005)
