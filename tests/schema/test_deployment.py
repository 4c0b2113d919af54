"""Schedules as they may be written: what we take, Prefect takes too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llsflow.schema.deployment import Deployment


def deployment(**schedule: Any) -> Deployment:
    return Deployment(name="x", experiment="quickstart", **schedule)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("6h", 21_600), ("1d", 86_400), ("2w", 1_209_600)]
)
def test_an_interval_is_a_number_and_its_unit(text: str, seconds: int) -> None:
    assert deployment(interval=text).period() == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["0h", "h", "1.5h", "-1h", "1 h", "1y", "", "12345678s"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValidationError):
        deployment(interval=text)


@pytest.mark.parametrize(
    "text", ["0 3 * * *", "*/15 * * * *", "0 9-17/2 * * mon-fri", "5,35 0 1 JAN,jul *", "0 0 * * 7"]
)
def test_what_is_cron(text: str) -> None:
    assert deployment(cron=text).period() is None


@pytest.mark.parametrize(
    "text", ["0 3 * *", "60 * * * *", "* * 0 * *", "@daily", "*/0 * * * *", "5-1 * * * *", "a * * * *", "* * * * mon-"]
)
def test_what_is_no_cron(text: str) -> None:
    with pytest.raises(ValidationError):
        deployment(cron=text)


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, 30).map(lambda n: f"*/{n}")
    return st.lists(st.one_of(st.just("*"), number.map(str), span, step), min_size=1, max_size=3).map(",".join)


@settings(max_examples=100)
@given(st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 7)).map(" ".join))
def test_prefect_takes_what_we_take(text: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    assert deployment(cron=text).cron == CronSchedule(cron=text, timezone="UTC").cron


def test_a_rule_of_rfc_5545() -> None:
    text = "FREQ=WEEKLY;BYDAY=MO,FR;BYHOUR=3;BYMINUTE=0"
    assert deployment(rrule=text, timezone="Europe/Berlin").rrule == text
