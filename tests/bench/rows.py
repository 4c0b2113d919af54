"""The rows that the API is measured with: questions and answers of about 130 bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE_ROWS = 100
"""Of the page that is measured; it begins at the middle of the set."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def row(number: int) -> dict[str, Any]:
    """Return the row of that number."""
    day = _DAYS[number % 7]
    return {
        "question": f"Which day comes {number} days after {day}, when every week has seven days?",
        "answer": _DAYS[(number + number) % 7],
        "source": f"calendar-{number:07d}",
    }


def write(path: Path, count: int) -> None:
    """Write so many rows as JSON lines."""
    import json

    with path.open("w") as file:
        file.writelines(json.dumps(row(number)) + "\n" for number in range(count))
