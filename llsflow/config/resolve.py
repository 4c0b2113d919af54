"""Interpolations: resolved by OmegaConf one by one, so that each bad one is told with its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from omegaconf import Container, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from llsflow.config.fields import known_keys
from llsflow.config.report import MISSING, Report, dotted
from llsflow.config.tree import Tree
from llsflow.schema.experiment import Loc
from llsflow.schema.kinds import nearest

ENVIRONMENT = "oc.env"
_MARK = "\x00environment\x00"


def leaves(value: Any, loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """Yield every value that is no mapping and no list, with its location."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*loc, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*loc, index))
    else:
        yield loc, value


def resolve(tree: Tree, report: Report) -> dict[str, Any]:
    """Return the tree's values with every interpolation replaced; what cannot be is noted and left out."""
    config = OmegaConf.create(tree.values)
    resolved = copy.deepcopy(tree.values)
    holder = Tree(resolved)
    for loc, text in list(leaves(tree.values)):
        if not isinstance(text, str):
            continue
        if text == MISSING:
            message = f"{dotted(loc)}: not set yet: give it a value with {dotted(loc)}=VALUE"
            if not report.explains_absence(loc):
                report.add(tree.place(loc), message, absent=loc)
            holder.delete(loc)
        elif "${" in text:
            try:
                _set(resolved, loc, _value(config, loc))
            except InterpolationToMissingValueError:
                # the ??? that it refers to is told at its own place
                report.absent.add(loc)
                holder.delete(loc)
            except (OmegaConfBaseException, RecursionError) as error:
                message = f"{dotted(loc)}: {text} {_reason(error, tree)}"
                report.add(tree.place(loc), message, absent=loc)
                holder.delete(loc)
    return resolved


def environment(tree: Tree) -> dict[str, str]:
    """Return the interpolation of every key whose value comes from the environment, by dotted key.

    Found by resolving with a mark in place of each `${oc.env:…}`, which also catches what refers to such a key.
    """
    own = {loc: text for loc, text in leaves(tree.values) if isinstance(text, str) and ENVIRONMENT in text}
    if not own:
        return {}
    marked = Tree(copy.deepcopy(tree.values))
    for loc in own:
        _set(marked.values, loc, _MARK)
    resolved = resolve(marked, Report())
    texts = dict(leaves(tree.values))
    found = {loc for loc, value in leaves(resolved) if isinstance(value, str) and _MARK in value}
    return {dotted(loc): str(texts.get(loc, "${…}")) for loc in sorted(found, key=dotted)}


def _value(config: Container, loc: Loc) -> Any:
    node: Any = config
    for part in loc:
        node = node[part]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _set(values: Any, loc: Loc, value: Any) -> None:
    for part in loc[:-1]:
        values = values[part]
    values[loc[-1]] = value


def _reason(error: Exception, tree: Tree) -> str:
    first = str(error).splitlines()[0]
    if isinstance(error, RecursionError) or first.startswith("Recursive interpolation"):
        return "refers to itself"
    if "not found" in first and "Interpolation key" in first:
        wanted = first.split("'")[1]
        known = [dotted(loc) for loc in tree.places] or list(known_keys())
        close = nearest(wanted, known)
        return f"refers to {wanted!r}, which is not there" + (f"; did you mean {close[0]!r}?" if close else "")
    return f"cannot be resolved: {first}"
