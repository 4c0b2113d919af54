"""Numbers as people read them."""

from __future__ import annotations

import pytest

from llsflow.cli.words import amount, duration, score, size


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, "0"), (999, "999"), (20_000, "20,000"), (1_234_567, "1.2 M"), (7.6e9, "7.6 G")]
)
def test_amount(value: float | None, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (12, "12 B"), (2_700_000, "2.7 MB"), (5e9, "5.0 GB"), (2e12, "2.0 TB")]
)
def test_size(value: float | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.26, "0.3 s"), (9.94, "9.9 s"), (42, "42 s"), (125, "2:05 min"), (3600 * 3 + 601, "3:10 h")],
)
def test_duration(value: float | None, text: str) -> None:
    assert duration(value) == text


def test_score() -> None:
    assert score(None) == "none"
    assert score(0.985, [0.957, 0.995]) == "0.985\n[0.957, 0.995]"
    assert score(-0.1, [-0.2, 0.05], sign=True) == "-0.100\n[-0.200, +0.050]"
