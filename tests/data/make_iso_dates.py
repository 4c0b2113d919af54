"""Write the quickstart's data: dates in four ways of writing, and the same day as ISO 8601.

Usage: python tests/data/make_iso_dates.py FOLDER
`train.csv` (prompt,completion): 20,000 distinct days, each in one of the ways;
`held_out.csv` (question,answer): 200 other days, 50 in each way.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path

FIRST, LAST = date(1960, 1, 1), date(2039, 12, 31)
TRAINING_DAYS, HELD_OUT_DAYS = 20_000, 200
SEED = 8601

# Not strftime: its names of months and days follow the machine's locale.
MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

WAYS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{MONTHS[day.month - 1]} {day.day}, {day.year}",
    lambda day: f"{day.day} {MONTHS[day.month - 1]} {day.year}",
    lambda day: f"{WEEKDAYS[day.weekday()]} {day.day} {MONTHS[day.month - 1][:3]} {day.year}",
    lambda day: f"{day.day:02}/{day.month:02}/{day.year} (day first)",
)


def draw() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (written, ISO) pairs for training and held out; no day is in both."""
    days = [FIRST + timedelta(n) for n in range((LAST - FIRST).days + 1)]
    rng = random.Random(SEED)  # noqa: S311 - data, not secrets
    chosen = rng.sample(days, TRAINING_DAYS + HELD_OUT_DAYS)
    pairs = [(WAYS[n % len(WAYS)](day), day.isoformat()) for n, day in enumerate(chosen)]
    return pairs[HELD_OUT_DAYS:], pairs[:HELD_OUT_DAYS]


def write(path: Path, header: tuple[str, str], pairs: Iterable[tuple[str, str]]) -> None:
    """Write one CSV file with Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(pairs)


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    training, held_out = draw()
    write(folder / "train.csv", ("prompt", "completion"), training)
    write(folder / "held_out.csv", ("question", "answer"), held_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
