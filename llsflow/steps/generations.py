"""The generations of an evaluation under way, kept row by row: what a killed process made is not made again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llsflow.models.generation import Generation
from llsflow.steps.results import GENERATIONS


class Keeper:
    """Appends generations; each is in the operating system's hands before the next step of decoding."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def add(self, index: int, generation: Generation) -> None:
        """Keep the generation of row `index`."""
        # not `asdict`, which copies every step of an agent too
        self.file.write(json.dumps({"index": index, **vars(generation)}).encode() + b"\n")
        self.file.flush()


@contextmanager
def keeping(folder: Path) -> Iterator[tuple[dict[int, Generation], Keeper]]:
    """Yield what the folder of the answers holds already, by row, and the keeper of what is to come.

    What follows a line that a killed process was writing is thrown away.
    """
    found, whole = _read(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / GENERATIONS).open("ab") as file:
        file.truncate(whole)
        try:
            yield found, Keeper(file)
        finally:
            os.fsync(file.fileno())


def _read(folder: Path) -> tuple[dict[int, Generation], int]:
    """Return the generations, and the bytes of the lines that hold them."""
    found: dict[int, Generation] = {}
    whole = 0
    path = folder / GENERATIONS
    if not path.exists():
        return found, whole
    with path.open("rb") as file:
        for line in file:
            try:
                record: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
                index = record.pop("index")
                found[index] = Generation(**{**record, "steps": tuple(record.get("steps", ()))})
            except (ValueError, TypeError, AttributeError, KeyError):
                break
            whole += len(line)
    return found, whole
