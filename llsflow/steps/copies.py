"""The trained model's copy in a folder of the user's: never over something else, never half there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from llsflow import home
from llsflow.errors import ConfigError, Mistake

MARK = ".llsflow.json"
"""In a copy: whose it is."""


def check(folder: Path, key: str) -> None:
    """Refuse a folder that cannot take the copy of the export step `key`.

    Raises:
        ConfigError: it is a file, cannot be written, or holds something else.
    """
    why = _taken(folder, key)
    if why:
        raise ConfigError([Mistake("recipe.checkpoint_dir", f"{str(folder)!r} {why}")])


def copy(model: Path, folder: Path, key: str) -> None:
    """Copy the model that the export step `key` wrote, aside and renamed; a whole copy of it is left alone.

    Raises:
        ConfigError: as `check`: the folder was taken since.
        StorageError: the disk is full, or the folder read-only.
    """
    check(folder, key)
    if _owner(folder) == key:
        return
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with home.storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(model, aside)
            home.write_json(aside / MARK, {"key": key})
            aside.rename(folder)  # an empty folder of that name gives way
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _owner(folder: Path) -> str | None:
    found = home.read_json(folder / MARK)
    return found.get("key") if isinstance(found, dict) else None


def _taken(folder: Path, key: str) -> str | None:
    """Return why the folder cannot take the copy."""
    existing = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        return "is a file, or lies below one: name a folder"
    if existing != folder:
        return None if os.access(existing, os.W_OK) else f"cannot be made: {str(existing)!r} is read-only"
    if _owner(folder) == key or not any(folder.iterdir()):
        return None if os.access(folder.parent, os.W_OK) else "cannot be replaced: its parent is read-only"
    what = "the model of another training" if _owner(folder) else "something else"
    return f"holds {what}: name a new folder, or move that away"
