"""95 % confidence intervals, and the difference of two candidates on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

Z95 = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""
RESAMPLES = 10_000
STUDENTIZED = 2_000
"""Resamples of a mean's interval, which is looked at by its own error and needs fewer."""
BOOTSTRAPPED_ROWS = 1_000
STUDENT_T95 = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004)
"""The 0.975 quantiles of Student's t with 1 to 8 degrees of freedom."""
_CHUNK = 2_000_000

Interval = list[float]


def numeric(scores: Sequence[Any]) -> Values:
    """Return the scores as numbers; NaN where one is null, infinite or a text that is no number."""
    import numpy as np

    try:
        values = np.array(scores, dtype=np.float64)  # null becomes NaN here
    except (TypeError, ValueError, OverflowError):
        values = np.array([_number(score) for score in scores], dtype=np.float64)
    if values.ndim != 1:  # lists of one length became a table
        values = np.full(len(scores), np.nan)
    values[~np.isfinite(values)] = np.nan
    return values


def _number(score: Any) -> float:
    try:
        return float(score)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def wilson(correct: float, total: int) -> Interval | None:
    """Return the 95 % interval of a share; null for no rows.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22.
    """
    if total == 0:
        return None
    share, z2 = correct / total, Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # the ends are exact at 0 and 1 in theory, off by one rounding in practice
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == total else min(1.0, middle + half)
    return [low, high]


def of_mean(values: Values, weights: Values | None = None, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of a (weighted) mean, within 0 and 1 where all values are; null for fewer than two rows.

    values, weights: n rows. A weighted mean is a ratio of two sums, whose variance is taken to first order.
    Source: bootstrap-t, Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 12.5 (with skewed scores and
    20 rows it covers 0.91 to 0.97, where the percentile and the normal interval cover 0.84 to 0.95). Under 10 rows, too
    few to draw from, Student's; over 1,000 normal: Miller 2024, arXiv:2411.00640, section 2. Ratios: Cochran 1977,
    Sampling Techniques, chapter 6.
    """
    import numpy as np

    n = len(values)
    if n < 2:
        return None
    pairs = np.stack([values, np.ones(n) if weights is None else weights], axis=1)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    mean, error = _mean_and_error(distinct, counts[None, :].astype(np.float64))
    low, high = -Z95, Z95
    if n < 2 + len(STUDENT_T95):
        low, high = -STUDENT_T95[n - 2], STUDENT_T95[n - 2]
    elif n <= BOOTSTRAPPED_ROWS:
        drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=STUDENTIZED).astype(np.float64)
        means, errors = _mean_and_error(distinct, drawn)
        # a sample of one value alone says nothing of the spread
        kept = errors > 1e-9 * (1 + np.abs(means))
        if kept.sum() >= STUDENTIZED / 2:
            low, high = np.quantile((means[kept] - mean[0]) / errors[kept], [0.025, 0.975])
    ends = np.array([mean[0] - high * error[0], mean[0] - low * error[0]])
    if bool(((values >= 0) & (values <= 1)).all()):
        ends = ends.clip(0, 1)
    return [float(end) for end in ends]


def _mean_and_error(distinct: Values, counts: Values) -> tuple[Values, Values]:
    """Return the weighted mean of each of m samples, and its standard error.

    distinct: (d, 2) values and weights; counts: (m, d) how often each sample has them.
    """
    import numpy as np

    values, weights = distinct[:, 0], distinct[:, 1]
    n = counts.sum(axis=1)
    total = np.maximum(counts @ weights, np.finfo(np.float64).tiny)
    means = counts @ (weights * values) / total
    # sum of w² (v - mean)², without a table of every sample's deviations
    squares = counts @ (weights * values) ** 2 - 2 * means * (counts @ (weights**2 * values))
    squares = np.maximum(squares + means**2 * (counts @ weights**2), 0.0)
    return means, np.sqrt(squares * n / (n - 1)) / total


def of_median(values: Values) -> Interval | None:
    """Return the 95 % interval of a median between two of the sorted values; null for no rows.

    Source: Conover 1999, Practical Nonparametric Statistics (3rd ed.), section 3.2: ranks from the normal
    approximation of the binomial; with few rows the interval is the whole range.
    """
    import numpy as np

    n = len(values)
    if n == 0:
        return None
    ranked = np.sort(values)
    half = Z95 * math.sqrt(n) / 2
    low = max(1, math.ceil(n / 2 - half))
    high = min(n, math.ceil(n / 2 + half))
    return [float(ranked[low - 1]), float(ranked[high - 1])]


def paired_difference(base_scores: Sequence[Any], tuned_scores: Sequence[Any], seed: int = 0) -> dict[str, Any]:
    """Return how much higher the tuned candidate scores on the same rows than the base, with a 95 % interval.

    `difference` is the mean of tuned - base over the `num_pairs` rows that both could be scored on;
    `num_unscored` rows were left out. Null where there is nothing to compare.

    Raises:
        ValueError: the two have not the same number of rows.
    Source: shares (all scores 0 or 1): newcombe_paired. Else paired bootstrap, percentile interval: Efron &
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; for two systems on the same test set: Koehn 2004,
    "Statistical Significance Tests".
    """
    import numpy as np

    if len(base_scores) != len(tuned_scores):
        raise ValueError(f"{len(base_scores)} base scores and {len(tuned_scores)} tuned ones: not the same rows")
    base, tuned = numeric(base_scores), numeric(tuned_scores)
    pairs = tuned - base
    both = np.isfinite(pairs)
    base, tuned, differences = base[both], tuned[both], pairs[both]
    n = len(differences)
    result = {"num_pairs": n, "num_unscored": len(pairs) - n}
    if n == 0:
        return {"difference": None, "confidence_interval_95": None, **result}
    if bool(np.isin(base, (0.0, 1.0)).all() and np.isin(tuned, (0.0, 1.0)).all()):
        interval = newcombe_paired(base, tuned)
    else:
        means = _resampled_means(differences, np.random.default_rng(seed))
        interval = [float(end) for end in np.quantile(means, [0.025, 0.975])]
    return {"difference": float(differences.mean()), "confidence_interval_95": interval, **result}


def newcombe_paired(base: Values, tuned: Values) -> Interval:
    """Return the 95 % interval of the difference of two shares on the same n rows, n > 0; scores are 0 or 1.

    Unlike a bootstrap it has a width where every pair differs alike.
    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17, method 10: Wilson intervals of both shares, and their correlation phi.
    """
    n = len(base)
    both, only_base = float((base * tuned).sum()), float((base * (1 - tuned)).sum())
    only_tuned = float(((1 - base) * tuned).sum())
    neither = n - both - only_base - only_tuned
    p1, p2 = float(base.mean()), float(tuned.mean())
    (l1, u1), (l2, u2) = wilson(p1 * n, n) or [0.0, 1.0], wilson(p2 * n, n) or [0.0, 1.0]
    margins = (both + only_base) * (only_tuned + neither) * (both + only_tuned) * (only_base + neither)
    product = both * neither - only_base * only_tuned
    if product > 0:  # continuity correction
        product = max(0.0, product - n / 2)
    phi = product / math.sqrt(margins) if margins else 0.0
    below = math.sqrt(max(0.0, (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2))
    above = math.sqrt(max(0.0, (u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2))
    return [p2 - p1 - below, p2 - p1 + above]


def _resampled_means(values: Values, draw: np.random.Generator) -> Values:
    """Return the means of RESAMPLES samples drawn with replacement.

    Drawing n rows with replacement is a multinomial draw over the distinct values. For scores of 0 and 1 these
    are three, so that the cost does not grow with the rows.
    """
    import numpy as np

    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    step = max(1, _CHUNK // len(distinct))
    means = []
    for start in range(0, RESAMPLES, step):
        drawn = draw.multinomial(n, counts / n, size=min(step, RESAMPLES - start))
        means.append(drawn @ distinct / n)
    return np.concatenate(means)
