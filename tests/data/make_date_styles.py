"""Write the data of preference optimisation: dates rewritten in two styles, and which style is preferred.

Usage: python tests/data/make_date_styles.py FOLDER
`train.csv` (prompt,completion): 12,000 of iso_dates' training days, each rewritten as 1967-12-06 or as 06.12.1967;
`preferences.csv` (prompt,chosen,rejected): 2,200 other training days, the first style chosen, the second rejected.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from make_iso_dates import draw

STYLED, PREFERRED = 12_000, 2_200
SEED = 5008


def dotted(iso: str) -> str:
    """Return 1967-12-06 as 06.12.1967."""
    year, month, day = iso.split("-")
    return f"{day}.{month}.{year}"


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write one CSV file with Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs, _ = draw()
    rng = random.Random(SEED)  # noqa: S311 - data, not secrets
    styled = [(written, rng.choice((iso, dotted(iso)))) for written, iso in pairs[:STYLED]]
    preferred = [(written, iso, dotted(iso)) for written, iso in pairs[STYLED : STYLED + PREFERRED]]
    write(folder / "train.csv", ("prompt", "completion"), styled)
    write(folder / "preferences.csv", ("prompt", "chosen", "rejected"), preferred)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
