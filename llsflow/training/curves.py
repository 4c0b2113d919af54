"""The curves of a training, kept on disk so that a resumed run goes on drawing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llsflow import home


class Curves:
    """Points by name; `upto` is the step of the checkpoint, later points belong to lost steps.

    Without a path they are in memory alone.
    """

    def __init__(self, path: Path | None, upto: int = 0) -> None:
        self.path = path
        self.points: dict[str, list[tuple[int, float]]] = {}
        if path is None:
            return
        kept = [point for point in _read(path) if point["step"] <= upto]
        for point in kept:
            self._add(point["metrics"], point["step"])
        home.write_aside(path, "".join(json.dumps(point) + "\n" for point in kept))

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Append a point of each name."""
        self._add(metrics, step)
        if self.path is None:
            return
        with home.storage_errors(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "metrics": metrics}) + "\n")

    def _add(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.points.setdefault(name, []).append((step, value))

    def last(self, name: str) -> float:
        """Return the newest value."""
        return self.points[name][-1][1]

    def last_or_none(self, name: str) -> float | None:
        """Return the newest value, or None where there is no such curve."""
        return self.last(name) if name in self.points else None

    def at(self, name: str, step: int) -> float | None:
        """Return the value at this step, or None where none was measured."""
        points = self.points.get(name)
        return points[-1][1] if points and points[-1][0] == step else None


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    points = []
    for line in path.read_text("utf-8").splitlines():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the end of a line that a killed process was writing
    return points
