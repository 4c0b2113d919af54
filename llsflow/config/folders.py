"""Where configuration lies: the packaged conf folder, the user's folder over it, and what they hold."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llsflow.errors import ConfigError, Mistake
from llsflow.home import storage_errors, write_aside
from llsflow.schema.kinds import nearest

EXPERIMENT = "experiment"
CONF_SCHEME = "conf://"
PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def packaged_conf() -> Path:
    """Return the conf folder that comes with llsflow: inside the package (wheel), or beside it (checkout)."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def shown(path: Path) -> str:
    """Return a path as the user would write it: from the current folder where it lies below, else absolute."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


class Registered(Protocol):
    """What can be named beside the files of conf."""

    def __call__(self, group: str, name: str) -> dict[str, Any] | None:
        """Return what a name of a group stands for, as its file would say it; None: nothing."""

    def names(self, group: str) -> list[str]:
        """Return the names of a group."""


Version = tuple[str, int, int]
"""A file as it is now: its path, time of change (nanoseconds) and size (bytes)."""


@dataclass(frozen=True)
class Option:
    """One YAML of a group."""

    name: str
    file: Path
    description: str
    """The file's first comment line."""


@dataclass(frozen=True)
class Folders:
    """The conf folders, the one that shadows first."""

    paths: tuple[Path, ...]

    @staticmethod
    def at(config_dir: Path | None) -> Folders:
        """Return the user's folder (`config_dir`, else ./conf where there is one) over the packaged one.

        Raises:
            ConfigError: `config_dir` is not a folder.
        """
        packaged = packaged_conf()
        if config_dir is not None and not config_dir.is_dir():
            raise ConfigError([Mistake("--config-dir", f"no folder {str(config_dir)!r}: name one with YAML files")])
        user = (config_dir or Path("conf")).absolute()
        if not user.is_dir() or user.samefile(packaged):
            return Folders((packaged,))
        return Folders((user, packaged))

    def find(self, name: str) -> Path | None:
        """Return the file of `group/option` (no ending), the user's before the packaged; None: there is none."""
        if not _inside(name):
            return None
        candidates = (folder / f"{name}.yaml" for folder in self.paths)
        return next((path for path in candidates if _holds(path.is_file)), None)

    def is_group(self, name: str) -> bool:
        """Whether a folder of that name holds YAML files, or may."""
        return bool(name) and _inside(name) and any(_holds((folder / name).is_dir) for folder in self.paths)

    def shadows(self, path: Path) -> Path | None:
        """Return the packaged file that `path` stands before, or None."""
        for index, folder in enumerate(self.paths[:-1]):
            if path.is_relative_to(folder):
                relative = path.relative_to(folder)
                hidden = (lower / relative for lower in self.paths[index + 1 :])
                return next((file for file in hidden if file.is_file()), None)
        return None

    def options(self, group: str) -> list[str]:
        """Return the names of a group's YAML files, sorted."""
        return sorted({path.stem for path in self._files(group, "*.yaml")})

    def versions(self, group: str) -> list[tuple[str, Version]]:
        """Return the name and the version of each YAML file of a group, sorted; the user's stand before the packaged.

        A request asks for it: one look at each folder, and one at each file.
        """
        found: dict[str, Version] = {}
        for folder in reversed(self.paths):
            if not _inside(group):
                continue
            with contextlib.suppress(OSError), os.scandir(folder / group) as entries:
                for entry in entries:
                    if entry.name.endswith(".yaml") and entry.is_file():
                        stat = entry.stat()
                        found[entry.name.removesuffix(".yaml")] = (entry.path, stat.st_mtime_ns, stat.st_size)
        return sorted(found.items())

    def unread(self, group: str) -> list[Path]:
        """Return the `.yml` files of a group: nothing reads them."""
        return sorted(self._files(group, "*.yml"))

    def groups(self) -> list[str]:
        """Return the folders that hold YAML files, as `group` or `group/subgroup`, sorted."""
        found = set()
        for folder in self.paths:
            for path in folder.rglob("*.yaml"):
                group = path.parent.relative_to(folder).as_posix()
                if group != ".":
                    found.add(group)
        return sorted(found)

    def _files(self, group: str, pattern: str) -> Iterator[Path]:
        for folder in self.paths:
            if _inside(group) and (folder / group).is_dir():
                yield from (folder / group).glob(pattern)


def _inside(name: str) -> bool:
    return not name.startswith(("/", "\\")) and ".." not in name.split("/")


def _holds(look: Callable[[], bool]) -> bool:
    """Return what a look at the disk says; what is named so long that no disk could have it is not there."""
    try:
        return look()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def unknown_option(folders: Folders, group: str, name: str, also: Iterable[str] = ()) -> str:
    """Return the sentence for an option that is not there: what was found, what is allowed, the nearest."""
    yml = next((path for path in folders.unread(group) if path.stem == name), None)
    if yml is not None:
        return f"{shown(yml)} is not read: rename it to {yml.stem}.yaml"
    options = sorted({*folders.options(group), *also})
    meant = group.rpartition("/")[2]
    if not options and folders.find(f"{meant}/{name}"):
        return f"no group {group!r}: to choose the {meant} here write '- override /{meant}: {name}'"
    close = nearest(name, options)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"no {group} {name!r}{hint} Known: {', '.join(options) or 'none'}"


def description_of(path: Path) -> str:
    """Return the first comment line of a YAML file, without its mark."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.strip()
            if text and not text.startswith("#"):
                return ""
            words = text.lstrip("#").strip()
            if words and not words.startswith("@"):
                return words
    return ""


def list_options(config_dir: Path | None = None) -> dict[str, list[Option]]:
    """Return every group with its options, the user's and the packaged ones."""
    folders = Folders.at(config_dir)
    listing: dict[str, list[Option]] = {}
    for group in folders.groups():
        files = ((name, folders.find(f"{group}/{name}")) for name in folders.options(group))
        listing[group] = [Option(name, file, description_of(file)) for name, file in files if file]
    return listing


def option_exists(group: str, name: str, config_dir: Path | None = None) -> bool:
    """Return whether a group has a file of that name, the user's or a packaged one."""
    return Folders.at(config_dir).find(f"{group}/{name}") is not None


def config_source(name: str, config_dir: Path | None = None) -> tuple[Path, str]:
    """Return the file of `group/option` and its text.

    Raises:
        ConfigError: there is no such group or option.
    """
    folders = Folders.at(config_dir)
    path = folders.find(name)
    if path is None:
        group, _, option = name.rpartition("/")
        if group in folders.groups():
            raise ConfigError([Mistake(name, unknown_option(folders, group, option))])
        known = [f"{g}/{o}" for g in folders.groups() for o in folders.options(g)]
        close = nearest(name, known) or [k for k in known if k.rpartition("/")[2] == option]
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError([Mistake(name, f"write group/option{hint} Known groups: {', '.join(folders.groups())}")])
    return path, path.read_text("utf-8")


def copy_config(name: str, destination_dir: Path) -> Path:
    """Copy a packaged `group/option` into the user's conf folder and return the new file.

    Raises:
        ConfigError: there is no such option, or a file of that name is there already.
        StorageError: the folder cannot be written.
    """
    source = Folders((packaged_conf(),)).find(name)
    if source is None:
        source, _ = config_source(name)
    target = destination_dir / f"{name}.yaml"
    if target.exists():
        raise ConfigError([Mistake(shown(target), "is there already: move it away, or edit it as it is")])
    with storage_errors(destination_dir):
        write_aside(target, source.read_bytes())
    return target


def resolve_conf_uri(uri: str, config_dir: Path | None = None) -> Path:
    """Return the file that a `conf://…` URI names: in the user's conf folder, else in the packaged one.

    Raises:
        ConfigError: it is in neither, or the URI leaves the conf folder.
    """
    relative = uri.removeprefix(CONF_SCHEME)
    folders = Folders.at(config_dir)
    for folder in folders.paths:
        root = folder.resolve()
        path = Path(os.path.normpath(root / relative))
        if not path.is_relative_to(root) or not path.resolve().is_relative_to(root):
            raise ConfigError([Mistake(uri, "leaves the conf folder: name a file inside it, or use its path")])
        if path.is_file():
            return path
    looked = " and ".join(shown(folder) for folder in folders.paths)
    raise ConfigError([Mistake(uri, f"no such file; looked in {looked}")])
