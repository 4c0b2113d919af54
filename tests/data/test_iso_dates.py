"""The quickstart's data: as generated, right, and held out in truth."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[2] / "conf" / "dataset" / "iso_dates"
FORMATS = {
    r"[A-Z][a-z]+ \d{1,2}, \d{4}": "%B %d, %Y",
    r"\d{1,2} [A-Z][a-z]+ \d{4}": "%d %B %Y",
    r"[A-Z][a-z]{2} \d{1,2} [A-Z][a-z]{2} \d{4}": "%a %d %b %Y",
    r"\d{2}/\d{2}/\d{4} \(day first\)": "%d/%m/%Y (day first)",
}


def rows(name: str) -> list[list[str]]:
    with (SHIPPED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def read(written: str) -> tuple[str, date]:
    """Return the way of writing and the day, read back by the standard library."""
    (way,) = [way for pattern, way in FORMATS.items() if re.fullmatch(pattern, written)]
    day = datetime.strptime(written, way).date()
    assert way != "%a %d %b %Y" or written.startswith(day.strftime("%a")), written
    return way, day


def test_shipped_files_are_the_generators(tmp_path: Path) -> None:
    subprocess.run([sys.executable, Path(__file__).with_name("make_iso_dates.py"), tmp_path], check=True)
    for name in ("train.csv", "held_out.csv"):
        assert (SHIPPED / name).read_bytes() == (tmp_path / name).read_bytes(), name
        assert (SHIPPED / name).stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("name", "header", "count"),
    [("train.csv", ["prompt", "completion"], 20_000), ("held_out.csv", ["question", "answer"], 200)],
)
def test_every_answer_is_right_and_every_day_once(name: str, header: list[str], count: int) -> None:
    head, *body = rows(name)
    assert head == header
    assert len(body) == count
    ways: Counter[str] = Counter()
    for written, answer in body:
        way, day = read(written)
        assert day.isoformat() == answer
        ways[way] += 1
    assert len({answer for _, answer in body}) == count
    assert set(ways.values()) == {count // 4}


def test_no_held_out_day_is_a_training_day() -> None:
    training = {row[1] for row in rows("train.csv")[1:]}
    held_out = {row[1] for row in rows("held_out.csv")[1:]}
    assert not training & held_out
