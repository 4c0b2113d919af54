"""The composed tree: plain values, and beside each key the place that had the last word on it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from llsflow.config.fields import ROOT
from llsflow.config.report import ABSENT, MISSING, Place, PlaceOf, Report, dotted
from llsflow.schema.experiment import Loc
from llsflow.schema.kinds import Kind


@dataclass
class Tree:
    """Merged configuration with Hydra's rules: mappings merge, everything else replaces, ??? yields."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Loc, Place] = field(default_factory=dict)
    origin: Place = field(default_factory=lambda: Place("command line"))
    """What was asked for: where nothing else can be pointed at."""
    root: Kind = ROOT
    """What the tree is to become: an experiment, or a record of another group."""
    noun: str = "an experiment"
    """That, in words."""

    def get(self, loc: Loc) -> Any:
        """Return the value at `loc`, or ABSENT."""
        current: Any = self.values
        for part in loc:
            current = _item(current, part)
        return current

    def place(self, loc: Loc) -> Place:
        """Return the place of `loc`, or of the nearest mapping around it."""
        for end in range(len(loc), 0, -1):
            if place := self.places.get(loc[:end]):
                return place
        return self.origin

    def merge(self, loc: Loc, value: Any, place_of: PlaceOf, report: Report) -> None:
        """Merge `value` into the tree at `loc`; mappings on the way are made."""
        if not loc:
            for key, item in value.items():
                self._merge(self.values, (key,), item, _below(place_of, key), report)
            return
        parent: Any = self.values
        for end in range(1, len(loc)):
            if isinstance(parent, dict) and not isinstance(parent.get(loc[end - 1]), dict | list):
                parent[loc[end - 1]] = {}
                self.places[loc[:end]] = place_of(())
            parent = parent[loc[end - 1]]
        self._merge(parent, loc, value, place_of, report)

    def delete(self, loc: Loc) -> None:
        """Remove what stands at `loc`, with its places."""
        parent = self.get(loc[:-1])
        if isinstance(parent, dict):
            parent.pop(loc[-1], None)
        elif isinstance(parent, list) and isinstance(loc[-1], int) and loc[-1] < len(parent):
            parent[loc[-1]] = None
        self._forget(loc)

    def _merge(self, parent: Any, loc: Loc, value: Any, place_of: PlaceOf, report: Report) -> None:
        key = loc[-1]
        current = parent.get(key, ABSENT) if isinstance(parent, dict) else parent[key]
        if isinstance(value, str) and value == MISSING and current is not ABSENT:
            return
        if isinstance(value, dict) and isinstance(current, dict):
            self.places.setdefault(loc, place_of(()))
            for name, item in value.items():
                self._merge(current, (*loc, name), item, _below(place_of, name), report)
            return
        if isinstance(value, dict) and isinstance(current, str) and "${" in current:
            message = f"{dotted(loc)}: is {current} at {self.place(loc)}: its keys cannot be set from here"
            report.add(place_of(()), message, absent=loc)
            return
        self._forget(loc)
        parent[key] = copy.deepcopy(value)
        self._note(loc, value, place_of)

    def _note(self, loc: Loc, value: Any, place_of: PlaceOf) -> None:
        self.places[loc] = place_of(())
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            self._note((*loc, key), item, _below(place_of, key))

    def _forget(self, loc: Loc) -> None:
        for other in [known for known in self.places if known[: len(loc)] == loc]:
            del self.places[other]


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part, ABSENT)
    if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return ABSENT


def _below(place_of: PlaceOf, key: str | int) -> PlaceOf:
    return lambda loc: place_of((key, *loc))
