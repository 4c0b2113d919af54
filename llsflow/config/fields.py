"""What the schema of an experiment takes at every place."""

from __future__ import annotations

from collections.abc import Iterator

from llsflow.schema.experiment import Experiment, Loc
from llsflow.schema.kinds import Kind

ROOT = Kind.of(Experiment)


def kind_at(loc: Loc, root: Kind = ROOT) -> Kind | None:
    """Return what the schema takes at `loc`; None: it knows no such place."""
    kind: Kind | None = root
    for part in loc:
        kind = kind.child(part) if kind else None
    return kind


def known_keys(kind: Kind = ROOT, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key that the schema names, parents before children."""
    for name, child in kind.keys().items():
        yield prefix + name
        yield from known_keys(child, f"{prefix}{name}.")
