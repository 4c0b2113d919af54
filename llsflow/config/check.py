"""The checks of a resolved tree, each mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llsflow.config.fields import ROOT, kind_at
from llsflow.config.folders import Folders
from llsflow.config.overrides import nearest_key
from llsflow.config.report import ABSENT, Place, Report, dotted
from llsflow.config.tree import Tree
from llsflow.schema.experiment import Experiment, Loc, cross_checks
from llsflow.schema.kinds import Kind, in_words, mistake_in_words, nearest, untagged

TARGET = "_target_"
SWITCH = re.compile(r"^(on|off|yes|no|y|n)$", re.IGNORECASE)
MISREAD_NUMBER = re.compile(r"^[-+]?(0[0-7_]+|\d[\d_]*(:[0-5]?\d)+)$")
WHOLE_INTERPOLATION = re.compile(r"^\$\{([\w.]+)\}$")
RecordT = TypeVar("RecordT", bound=BaseModel)
NOTHING_THERE = {"missing", "union_tag_not_found"}


def refuse_targets(resolved: dict[str, Any], tree: Tree, report: Report) -> None:
    """Note and remove every `_target_`: configuration names things, it does not run code."""
    holder = Tree(resolved)
    for loc in list(_targets(resolved)):
        message = f"{dotted(loc)}: configuration never names code; remove it, and name a kind or type instead"
        report.add(tree.place(loc), message)
        holder.delete(loc)


def _targets(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key == TARGET:
            yield (*loc, key)
        else:
            yield from _targets(item, (*loc, key))


def warn_of_misread_scalars(resolved: dict[str, Any], tree: Tree, report: Report) -> None:
    """Warn of unquoted scalars that YAML reads as something else, where nothing else would refuse them."""
    for loc, place in tree.places.items():
        kind = kind_at(loc, tree.root)
        if kind is None or not place.plain or kind.wants_text:
            continue
        switch = SWITCH.match(place.plain) and kind.is_open
        if switch or MISREAD_NUMBER.match(place.plain):
            value = in_words(Tree(resolved).get(loc))
            report.warn(f'{place}: {dotted(loc)}: {place.plain} is read as {value}: quote it ("{place.plain}")')


def check(resolved: dict[str, Any], tree: Tree, folders: Folders, report: Report) -> Experiment | None:
    """Return the checked experiment, or None with every mistake noted."""
    experiment = check_record(Experiment, resolved, tree, folders, report)
    if experiment is None:
        return None
    for loc, sentence in cross_checks(experiment):
        if not report.touches(loc):
            report.add(tree.place(loc), f"{dotted(loc)}: {sentence}")
    return experiment


def check_record(
    record: type[RecordT], resolved: dict[str, Any], tree: Tree, folders: Folders, report: Report
) -> RecordT | None:
    """Return the checked record of any group, or None with every mistake noted."""
    try:
        return record.model_validate(resolved)
    except ValidationError as error:
        _note_all(error.errors(include_url=False), resolved, tree, folders, report)
        return None


def _note_all(
    errors: list[ErrorDetails], resolved: dict[str, Any], tree: Tree, folders: Folders, report: Report
) -> None:
    # one message for one slip: a misspelt key is both unknown and, under its right name, missing
    for details in errors:
        if details["type"] == "extra_forbidden":
            loc, parent = untagged(details["loc"], tree.root)
            for meant in nearest(str(loc[-1]), parent.keys() if parent else ()):
                report.absent.add((*loc[:-1], meant))
    # what only repeats another place's mistake comes after it, to be left out
    for details in sorted(errors, key=lambda details: bool(_referred(untagged(details["loc"], tree.root)[0], tree))):
        _note(details, resolved, tree, folders, report)


def _note(details: ErrorDetails, resolved: dict[str, Any], tree: Tree, folders: Folders, report: Report) -> None:
    (loc, parent), code = untagged(details["loc"], tree.root), details["type"]
    if code.startswith("union_tag"):
        loc = (*loc, "type")
    referred = _referred(loc, tree)
    if referred and any(text.startswith(f"{referred}: ") for _, text in report.found):
        return
    absence = code in NOTHING_THERE or Tree(resolved).get(loc) is ABSENT
    if (absence and report.explains_absence(loc)) or (code == "value_error" and report.touches(loc)):
        return
    if code == "extra_forbidden":
        message = f"unknown key; {nearest_key(loc, tree, kind=parent)}"
    else:
        message = _message(loc, details, folders, tree.root)
    place = tree.place(loc[:-1] if code in NOTHING_THERE else loc)
    key = f"{dotted(loc)}: " if loc else ""
    if not any(other == place and text.startswith(key) for other, text in report.found):
        report.add(place, f"{key}{message}{_misread(place, Tree(resolved).get(loc), kind_at(loc, tree.root))}")


def _referred(loc: Loc, tree: Tree) -> str:
    raw = tree.get(loc)
    match = WHOLE_INTERPOLATION.match(raw) if isinstance(raw, str) else None
    return match.group(1) if match else ""


def _message(loc: Loc, details: ErrorDetails, folders: Folders, root: Kind) -> str:
    if root is ROOT and details["type"] == "missing" and len(loc) == 1 and folders.is_group(str(loc[0])):
        return f"none is chosen: {loc[0]}=NAME (known: {', '.join(folders.options(str(loc[0])))})"
    return mistake_in_words(details, kind_at(loc, root))


def _misread(place: Place, value: Any, kind: Kind | None) -> str:
    if value is ABSENT or isinstance(value, str) or not place.plain or not (kind and kind.wants_text):
        return ""
    if kind.choices and place.plain not in kind.choices:
        return ""
    return f' (unquoted {place.plain} is read as {in_words(value)}: quote it, "{place.plain}")'
