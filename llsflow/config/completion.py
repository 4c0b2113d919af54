"""Tab completion of experiment names, `group=option`, dotted keys and enumerated values; without Hydra."""

from __future__ import annotations

from pathlib import Path

from llsflow.config.fields import ROOT, kind_at
from llsflow.config.folders import EXPERIMENT, Folders, Registered
from llsflow.schema.kinds import Kind

PREFIXES = ("++", "+", "~")


def complete(words: list[str], config_dir: Path | None = None, registered: Registered | None = None) -> list[str]:
    """Return the words that the last of `words` (what follows `llsflow run`) may become."""
    folders = Folders.at(config_dir)
    word = words[-1] if words else ""
    found: list[str] = []
    if len(words) <= 1:
        found += [name for name in folders.options(EXPERIMENT) if name.startswith(word)]
    mark = next((prefix for prefix in PREFIXES if word.startswith(prefix)), "")
    key, equals, start = word[len(mark) :].partition("=")
    if equals:
        names = registered.names(key) if registered and folders.is_group(key) else []
        return [f"{mark}{key}={value}" for value in [*_values(folders, key), *names] if value.startswith(start)]
    return found + [mark + name for name in _keys(folders, key) if name.startswith(key)]


def _values(folders: Folders, key: str) -> list[str]:
    if folders.is_group(key):
        return [*folders.options(key), "null"]
    kind = kind_at(tuple(key.split(".")))
    if kind is None:
        return []
    values = ["true", "false"] if bool in kind.types else [str(choice) for choice in kind.choices]
    return [*values, "null"] if kind.nullable else values


def _keys(folders: Folders, key: str) -> list[str]:
    parent = tuple(key.split("."))[:-1]
    kind: Kind | None = kind_at(parent) if parent else ROOT
    prefix = "".join(f"{part}." for part in parent)
    found = []
    for name, child in (kind.keys() if kind else {}).items():
        if not parent and folders.is_group(name):
            found.append(f"{name}=")
        found.append(f"{prefix}{name}." if child.records or child.mapping else f"{prefix}{name}=")
    return found
