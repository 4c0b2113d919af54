"""Groups that stand by themselves, outside every experiment: one file is one record. The server, a deployment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llsflow.config.check import RecordT, check_record, refuse_targets, warn_of_misread_scalars
from llsflow.config.files import read_document
from llsflow.config.folders import Folders, shown, unknown_option
from llsflow.config.report import Report, command_line
from llsflow.config.tree import Tree
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.agents import AgentConfig
from llsflow.schema.kinds import Kind
from llsflow.schema.server import ServerConfig

DEFAULT_SERVER = "default"
DEFAULT_AGENT = "assistant"


def load_server(overrides: Sequence[str] = (), config_dir: Path | None = None) -> ServerConfig:
    """Compose and check the configuration of `llsflow serve`.

    Args:
        overrides: `server=NAME`, a file of conf/server, once; the rest `server.key=value` or `key=value`.
        config_dir: files here (./conf where there is one) shadow packaged ones.

    Raises:
        ConfigError: every mistake, each with its place.
    """
    return _load_chosen(ServerConfig, "server", DEFAULT_SERVER, "a server", overrides, config_dir)


def load_agent(overrides: Sequence[str] = (), config_dir: Path | None = None) -> AgentConfig:
    """Compose and check the agent of `llsflow chat`.

    Args:
        overrides: `agent=NAME`, a file of conf/agent, once; the rest `agent.key=value` or `key=value`.
        config_dir: files here (./conf where there is one) shadow packaged ones.

    Raises:
        ConfigError: every mistake, each with its place.
    """
    return _load_chosen(AgentConfig, "agent", DEFAULT_AGENT, "an agent", overrides, config_dir)


def _load_chosen(
    record: type[RecordT], group: str, default: str, noun: str, overrides: Sequence[str], config_dir: Path | None
) -> RecordT:
    """Return the record of the file that one override chooses, under the others."""
    overrides = [re.sub(rf"^(\+{{0,2}}|~){group}\.", r"\1", text) for text in overrides]
    report = Report(typed=overrides)
    folders = Folders.at(config_dir)
    chosen = [text for text in overrides if text.startswith(f"{group}=")]
    for text in chosen[1:]:
        report.add(command_line(text), f"the {group} is {chosen[0]} already: choose one")
    name = chosen[0].partition("=")[2] if chosen else default
    if folders.find(f"{group}/{name}") is None:
        raise ConfigError([Mistake(str(command_line(chosen[0])), unknown_option(folders, group, name))])
    changes = [text for text in overrides if text not in chosen]
    found = load_standing(record, f"{group}/{name}", changes, folders, report, noun=noun)
    if report.found or found is None:
        raise ConfigError(report.mistakes())
    return found


def load_standing(
    record: type[RecordT],
    name: str,
    overrides: Sequence[str],
    folders: Folders,
    report: Report,
    *,
    noun: str,
    given: dict[str, Any] | None = None,
) -> RecordT | None:
    """Return the checked record of one file under the overrides, or None with every mistake noted.

    Args:
        record: what the file is to be.
        name: `group/option` of a file that is there.
        overrides: changes of its values, as typed.
        folders: where the file is looked for.
        report: gets the mistakes and warnings.
        noun: what it is, in words, for messages.
        given: values of keys that the file leaves out.
    """
    from llsflow.config.resolve import resolve

    path = folders.find(name)
    assert path is not None  # noqa: S101 - the caller has listed it
    document = read_document(path, report)
    tree = Tree(origin=document.place(()), root=Kind.of(record), noun=noun)
    if "defaults" in document.values:
        report.add(document.place(("defaults",)), f"{noun} has no defaults list: write its keys out", absent=())
    values = {key: value for key, value in document.values.items() if key != "defaults"}
    tree.merge((), {**(given or {}), **values}, document.place, report)
    if hidden := folders.shadows(path):
        report.warn(f"{shown(path)} shadows the packaged one ({shown(hidden)})")
    _change(tree, overrides, folders, report)
    resolved = resolve(tree, report)
    refuse_targets(resolved, tree, report)
    found = None if document.broken else check_record(record, resolved, tree, folders, report)
    warn_of_misread_scalars(resolved, tree, report)
    return found


def _change(tree: Tree, overrides: Sequence[str], folders: Folders, report: Report) -> None:
    """Apply the overrides, in the order typed."""
    if not overrides:
        return
    from llsflow.config.compose import Composer, change_of
    from llsflow.config.overrides import Applier

    composer = Composer(folders, report)
    applier = Applier(tree, folders, report, bring_dataset=lambda _: False)
    for text in overrides:
        if override := composer.parse(text):
            applier.apply(change_of(override))
