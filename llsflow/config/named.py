"""Groups whose files are records that something names, by their id or by the file: tool groups, shields, agents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic

from llsflow.config.check import RecordT
from llsflow.config.files import read_document
from llsflow.config.folders import Folders, Version
from llsflow.config.report import MISSING, Report, dotted
from llsflow.config.standing import load_standing
from llsflow.errors import ConfigError, Mistake, NotFoundError
from llsflow.schema.agents import AgentConfig
from llsflow.schema.kinds import or_known
from llsflow.schema.shields import ShieldConfig
from llsflow.schema.toolgroups import ToolGroupConfig


@dataclass(frozen=True)
class Named(Generic[RecordT]):
    """One such group."""

    group: str
    record: type[RecordT]
    noun: str
    key: str | None = None
    """Of the id in the file; null: the file's name is the id."""

    def find(self, name: str, config_dir: Path | None = None) -> RecordT:
        """Return the record of that id or file.

        Raises:
            NotFoundError: there is none.
            ConfigError: every mistake in its file, each with its place; or what it leaves open.
        """
        folders = Folders.at(config_dir)
        versions = dict(folders.versions(self.group))
        stems = {self._id(stem, version): stem for stem, version in reversed(versions.items())}
        stem = stems.get(name) or (name if name in versions else None)
        if stem is None:
            raise NotFoundError(f"no {self.noun} {name!r}{or_known(name, sorted(stems))}")
        record = _load(self, stem, folders, versions[stem])
        assert isinstance(record, self.record)  # noqa: S101 - for the type checker
        return record

    def complete(self, config_dir: Path | None = None) -> Iterator[tuple[str, RecordT, Path]]:
        """Yield the id, the record and the file of each that leaves nothing open and has no mistake, by file name."""
        folders = Folders.at(config_dir)
        for stem, version in folders.versions(self.group):
            try:
                record = _load(self, stem, folders, version)
            except ConfigError:
                continue  # told to who names it
            yield self._id(stem, version), record, Path(version[0])

    def _id(self, stem: str, version: Version) -> str:
        return (_value(version, self.key) or stem) if self.key else stem


TOOLGROUPS = Named("toolgroup", ToolGroupConfig, "tool group", "toolgroup_id")
SHIELDS = Named("shield", ShieldConfig, "shield", "shield_id")
AGENTS = Named("agent", AgentConfig, "agent")


@lru_cache(maxsize=256)
def _value(version: Version, key: str) -> str | None:
    """Return a text of a file."""
    found = read_document(Path(version[0]), Report()).values.get(key)
    return found if isinstance(found, str) else None


@lru_cache(maxsize=256)
def _load(named: Named[Any], stem: str, folders: Folders, version: Version) -> Any:
    if opened := list(_open(read_document(Path(version[0]), Report()).values)):
        told = f"write a file of your own that says it (llsflow cp {named.group}/{stem})"
        message = f"leaves {', '.join(opened)} open: {told}"
        raise ConfigError([Mistake(f"conf/{named.group}/{stem}.yaml", message)])
    report = Report()
    record = load_standing(named.record, f"{named.group}/{stem}", [], folders, report, noun=f"a {named.noun}")
    if report.found or record is None:
        raise ConfigError(report.mistakes())
    return record


def _open(value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from [dotted((*loc, key))] if item == MISSING else _open(item, (*loc, key))
