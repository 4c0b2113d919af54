"""The command line's dotted keys: what each may change, and what it meant when it is wrong."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from llsflow.config.fields import kind_at, known_keys
from llsflow.config.folders import Folders
from llsflow.config.report import ABSENT, Place, Report, command_line, dotted
from llsflow.config.tree import Tree
from llsflow.schema.experiment import Loc
from llsflow.schema.kinds import Kind, nearest

SURE = 0.8
"""How alike two whole dotted keys must be: they share much anyway."""

KEY = re.compile(r"[A-Za-z0-9_\-./@:$]+")
"""What Hydra takes for a key of an override (hydra.cc, override grammar)."""

Action = Literal["change", "add", "force", "delete"]


@dataclass(frozen=True)
class Change:
    """One override of a value."""

    action: Action
    loc: Loc
    value: Any
    text: str
    """As typed."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return command_line(self.text)


def advice(key: str, value: str) -> str:
    """Return what to write instead of an override that Hydra's grammar does not take; it is tried before it is told."""
    name = key.lstrip("+~")
    if not KEY.fullmatch(name):
        odd = "".join(dict.fromkeys(sign for sign in name if not KEY.fullmatch(sign)))
        parent, _, last = name.rpartition(".")
        mapping = f"{key.removesuffix(name)}{parent}={{{last}: {value}}}"
        usable = bool(parent) and _reads(mapping) is not ABSENT
        instead = (
            f"write {shlex.quote(mapping)}, or put it into a file" if usable else "put it into a YAML file (--config)"
        )
        return f"the key has {odd!r}, and keys here are of letters from a to z, digits, _ and -: {instead}"
    inner = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    inner = inner.replace("''", "'")
    for quoted in (f"'{inner}'", f'"{inner}"', "'" + inner.replace("'", "\\'") + "'"):
        if _reads(f"{key}={quoted}") == inner:
            shown = f'"{key}={quoted}"' if '"' not in quoted else shlex.quote(f"{key}={quoted}")
            return f"quote special characters: {shown}"
    return "put the value into a YAML file (--config)"


def _reads(text: str) -> Any:
    """Return the value that Hydra reads in an override; ABSENT: it reads none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text).value()
    except HydraException:
        return ABSENT


def nearest_key(loc: Loc, tree: Tree, rest: Loc = (), kind: Kind | None = None) -> str:
    """Return a hint with the right name nearest to an unknown key (followed by `rest`), and where it is written.

    `kind` is what the key stands in, where that is known better than from its place.
    """
    parent, wanted = loc[:-1], str(loc[-1])
    leaf = str((*loc, *rest)[-1])
    kind = kind or kind_at(parent, tree.root)
    here = tree.get(parent)
    free = isinstance(here, dict) and (kind is None or not kind.records)
    siblings = [*(kind.keys() if kind else ()), *(map(str, here) if free else ())]
    siblings = [name for name in dict.fromkeys(siblings) if name != wanted]
    allowed = f"allowed in {dotted(parent) or tree.noun}: {', '.join(siblings)}" if siblings else ""
    elsewhere = list(known_keys(tree.root))
    candidates = [dotted((*parent, name, *rest)) for name in nearest(wanted, siblings)]
    candidates += [key for key in elsewhere if key.rpartition(".")[2] == leaf]
    candidates += nearest(dotted((*loc, *rest)), elsewhere, SURE)
    if not candidates:
        return allowed
    written = tree.places.get(tuple(candidates[0].split(".")))
    meant = f"did you mean {candidates[0]}" + (f" ({written})?" if written else "?")
    return f"{meant} {allowed[:1].upper()}{allowed[1:]}".rstrip()


class Applier:
    """Applies the changes to the composed tree, in the order typed."""

    def __init__(self, tree: Tree, folders: Folders, report: Report, bring_dataset: Callable[[str], bool]) -> None:
        self.tree = tree
        self.folders = folders
        self.report = report
        self.bring_dataset = bring_dataset

    def apply(self, change: Change) -> None:
        """Apply one change, or note why it cannot be."""
        if change.loc[0] == "datasets" and len(change.loc) > 2:
            self.bring_dataset(str(change.loc[1]))
        refusal = self.refusal(change)
        if refusal:
            self.report.add(change.place, f"{dotted(change.loc)}: {refusal}")
        elif change.action == "delete":
            self.tree.delete(change.loc)
        else:
            self.tree.merge(change.loc, change.value, lambda _: change.place, self.report)

    def refusal(self, change: Change) -> str | None:
        """Return why a change cannot be applied; None: it can."""
        blocked = self.blocked(change.loc)
        if blocked is not None:
            return blocked
        current = self.tree.get(change.loc)
        if change.action == "delete":
            return self.not_deletable(change, current)
        if change.action == "add" and current is not ABSENT and not isinstance(change.value, dict | list):
            return f"is there already ({self.tree.place(change.loc)}): write it without the +"
        if change.action == "change" and current is ABSENT:
            return self.unknown(change.loc)
        return None

    def blocked(self, loc: Loc) -> str | None:
        """Return why nothing can stand below one of the parents of `loc`."""
        top = self.tree.get(loc[:1])
        of_tree = kind_at(loc[:1], self.tree.root) is not None
        if len(loc) > 1 and top in (ABSENT, None) and of_tree and self.folders.is_group(str(loc[0])):
            if self.report.explains_absence(loc[:1]):
                return None
            known = ", ".join(self.folders.options(str(loc[0])))
            return f"this experiment has no {loc[0]}: choose one first, {loc[0]}=NAME (known: {known})"
        for end in range(1, len(loc)):
            value = self.tree.get(loc[:end])
            if isinstance(value, list) and not (isinstance(loc[end], int) and int(loc[end]) < len(value)):
                return f"{dotted(loc[:end])} is a list of {len(value)}: its keys are 0 to {len(value) - 1}"
            if isinstance(value, str) and "${" in value:
                return f"{dotted(loc[:end])} is {value} ({self.tree.place(loc[:end])}): change that instead"
            if value is not ABSENT and value is not None and not isinstance(value, dict | list):
                return f"{dotted(loc[:end])} is a value ({value!r}): it has no keys"
        return None

    def not_deletable(self, change: Change, current: Any) -> str | None:
        if current is ABSENT and kind_at(change.loc, self.tree.root):
            return "is not there to delete: it has its default already"
        if current is ABSENT:
            return f"is not there to delete; {nearest_key(change.loc, self.tree)}".rstrip("; ")
        if change.value not in (None, current):
            return f"is {current!r}, not {change.value!r}: nothing deleted"
        return None

    def unknown(self, loc: Loc) -> str | None:
        for end in range(1, len(loc) + 1):
            if self.tree.get(loc[:end]) is not ABSENT:
                continue
            parent = kind_at(loc[: end - 1], self.tree.root)
            kind = kind_at(loc[:end], self.tree.root)
            if kind is None:
                # what was meant may be needed too: told once, as a misspelling
                for meant in nearest(str(loc[end - 1]), parent.keys() if parent else ()):
                    self.report.absent.add((*loc[: end - 1], meant))
                name = "" if end == len(loc) else f" {dotted(loc[:end])}"
                return f"unknown key{name}; {nearest_key(loc[:end], self.tree, loc[end:])}".rstrip("; ")
            # a key of a free mapping is not in the schema: only one that is there can be meant
            if parent and not parent.keys().get(str(loc[end - 1])) and not self.report.explains_absence(loc[:end]):
                hint = nearest_key(loc[:end], self.tree)
                return f"no such key here; {hint}{'. A' if hint else 'a'} new key is written +{dotted(loc)}=…"
        return None
