"""Hydra's part: the override grammar and the defaults list, over folders that shadow one another.

Hydra reads the grammar and decides which files take part in which order; files are loaded and merged here, because
Hydra stops at the first mistake and forgets lines. Its global state is touched under one lock and put back.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import version as hydra_version
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llsflow.config.files import Document, read_document
from llsflow.config.folders import EXPERIMENT, Folders, Registered, shown, unknown_option
from llsflow.config.overrides import Action, Applier, Change, advice
from llsflow.config.report import ABSENT, MISSING, Place, Report, command_line
from llsflow.config.tree import Tree
from llsflow.schema.experiment import Loc

PRIMARY = "config"
KEY_PART = re.compile(r"[^.\[\]]+")
ACTIONS: dict[OverrideType, Action] = {
    OverrideType.CHANGE: "change",
    OverrideType.ADD: "add",
    OverrideType.FORCE_ADD: "force",
    OverrideType.DEL: "delete",
}
_lock = threading.Lock()


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Hold Hydra's global state, at version base 1.3 where there are several, and put back what was there."""
    with _lock:
        holder = hydra_version.VersionBase.instance()
        before = holder.getbase()
        if hydra.__version__.startswith("1.3."):  # from 1.4 on there is only one, and setting it warns
            hydra_version.setbase("1.3")
        try:
            yield
        finally:
            holder.version_base = before


class Repository(ConfigRepository):
    """Finds and reads configs for Hydra; one that cannot be read is noted and counts as empty."""

    def __init__(self, folders: Folders, report: Report, registered: Registered | None) -> None:
        self.folders = folders
        self.report = report
        self.registered = registered
        self.documents: dict[str, Document] = {}
        self.results: dict[str, ConfigResult | None] = {}

    def document(self, name: str) -> Document | None:
        """Return the document `group/option`, read once."""
        if name not in self.documents:
            path = self.folders.find(name)
            if path is None:
                return self.registered_document(name)
            document = self.documents[name] = read_document(path, self.report)
            if document.package is None and name.startswith(f"{EXPERIMENT}/"):
                document.package = "_global_"
            if hidden := self.folders.shadows(path):
                self.report.warn(f"{shown(path)} shadows the packaged one ({shown(hidden)})")
        return self.documents[name]

    def registered_document(self, name: str) -> Document | None:
        """Return what is registered as `group/option`, as the document that would say it."""
        group, _, option = name.partition("/")
        # Hydra asks for the choice of a group that is null as `group/None`
        values = self.registered(group, option) if self.registered and option not in ("", "None") else None
        if values is None:
            return None
        place = Place(f"registered {group} {option}")
        places: dict[Loc, Place] = {(key,): place for key in values}
        self.documents[name] = Document(Path(place.file), values, {**places, (): place})
        return self.documents[name]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return what Hydra wants to know of a config: its defaults list and package."""
        name = config_path.removesuffix(".yaml")
        if name not in self.results:
            self.results[name] = self._result(name)
        return self.results[name]

    def _result(self, name: str) -> ConfigResult:
        # one that is not there is told where it is merged: Hydra would stop at it
        document = self.document(name) or Document(Path(name))
        own = {key: value for key, value in document.values.items() if key != "defaults"}
        result = ConfigResult(
            provider="llsflow",
            path=str(document.path),
            config=OmegaConf.create(own),
            header={"package": document.package},
        )
        result.defaults_list = self._defaults(name, document)
        return result

    def _defaults(self, name: str, document: Document) -> Any:
        raw = document.values.get("defaults", [])
        try:
            return self._create_defaults_list(
                name, self._extract_defaults_list(name, OmegaConf.create({"defaults": raw}))
            )
        except (ValueError, AssertionError, OmegaConfBaseException) as error:
            self.report.add(document.place(("defaults",)), f"defaults: {str(error).splitlines()[0]}", absent=())
            return []

    def config_exists(self, config_path: str) -> bool:
        return self.document(config_path.removesuffix(".yaml")) is not None

    def group_exists(self, config_path: str) -> bool:
        return self.folders.is_group(config_path)

    def get_group_options(self, group_name: str, results_filter: Any = None) -> list[str]:
        return self.folders.options(group_name)


class Composer:
    """Composes one experiment."""

    def __init__(self, folders: Folders, report: Report, registered: Registered | None = None) -> None:
        self.folders = folders
        self.report = report
        self.repository = Repository(folders, report, registered)
        self.tree = Tree()
        self.experiment: str | None = None
        self.nulls: list[Change] = []

    def compose(self, name: str | None, overrides: Sequence[str], config_file: Path | None) -> Tree:
        """Return the merged tree of the experiment `name`, or of `config_file`, under the overrides."""
        with _hydra():
            parsed = [override for text in overrides if (override := self.parse(text))]
            groups, changes = self.sort(parsed)
            groups = self.choose_experiment(name, groups, config_file)
            if config_file is not None:
                groups = self.stored(config_file, groups)
            else:
                self.check_primary()
            self.merge_files(groups)
        for change in self.nulls:
            self.tree.merge(change.loc, None, lambda _, c=change: c.place, self.report)  # type: ignore[misc]
        applier = Applier(self.tree, self.folders, self.report, self.bring_dataset)
        for change in changes:
            applier.apply(change)
        self.name_it()
        return self.tree

    def parse(self, text: str) -> Override | None:
        """Return an override, or note why it is none."""
        place = command_line(text)
        if "=" not in text and not text.startswith("~"):
            self.report.add(place, "found no '=': write key=value, +key=value, ++key=value or ~key")
            return None
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            key, _, value = text.partition("=")
            self.report.absent.add(_loc_of_key(key))
            self.report.add(place, f"not understood ({reason}); {advice(key, value)}")
            return None
        if override.is_sweep_override():
            key, _, value = text.partition("=")
            self.report.absent.add(_loc_of_key(key))
            self.report.add(
                place,
                "several values for one key: sweeps are not available; "
                f'for a list write "{key}=[{value}]", for a text "{key}=\'{value}\'"',
            )
            return None
        if override.key_or_group.split(".")[0].split("/")[0] == "hydra":
            self.report.add(place, "Hydra's own settings have no effect here: remove it")
            return None
        return override

    def sort(self, parsed: list[Override]) -> tuple[list[Override], list[Change]]:
        """Split overrides into choices of groups and changes of values."""
        groups: list[Override] = []
        changes: list[Change] = []
        for override in parsed:
            is_group = self.folders.is_group(override.key_or_group) and not isinstance(override.value(), dict)
            if not is_group:
                changes.append(change_of(override))
            elif self.usable(override):
                groups.append(override)
        return groups, changes

    def usable(self, override: Override) -> bool:
        """Whether a choice of a group is one; `group=null`, `group=none` and `~group` leave it out."""
        group, value = override.key_or_group, override.value()
        text = str(override.input_line)
        loc = _loc_of_package(override.package if override.package is not None else group.replace("/", "."))
        if value is None or (value == "none" and "none" not in self.folders.options(group)):
            self.nulls.append(Change("change", loc, None, text))
            override.type, override._value = OverrideType.DEL, None
            return self.has_default(override)
        names = value if isinstance(value, list) else [value]
        if len(names) > 1:
            message = f"{len(names)} options for one group, of which only one can be: choose one, {group}={names[0]}"
            self.report.add(command_line(text), message, absent=loc)
            return False
        unknown = [
            name for name in names if not isinstance(name, str) or self.repository.document(f"{group}/{name}") is None
        ]
        for name in unknown:
            self.report.add(command_line(text), self.unknown(group, str(name)), absent=loc)
        if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD):
            override.type = OverrideType.CHANGE if self.has_default(override) else OverrideType.ADD
        return not unknown

    def unknown(self, group: str, name: str, also: Iterable[str] = ()) -> str:
        """Return the sentence for an option that neither a file nor anything registered has."""
        registered = self.repository.registered
        names = registered.names(group) if registered else []
        return unknown_option(self.folders, group, name, [*also, *names])

    def has_default(self, override: Override) -> bool:
        """Whether config.yaml lists the group, so that a choice of it replaces the default."""
        primary = self.repository.document(PRIMARY)
        defaults = primary.values.get("defaults", []) if primary else []
        key = override.key_or_group + (f"@{override.package}" if override.package is not None else "")
        return any(isinstance(item, dict) and key in item for item in defaults)

    def choose_experiment(self, name: str | None, groups: list[Override], config_file: Path | None) -> list[Override]:
        """Return the choices with the experiment's first, if it is there."""
        self.tree.origin = command_line(name) if name else self.tree.origin
        chosen = [override for override in groups if override.key_or_group == EXPERIMENT]
        for override in chosen:
            if config_file is not None or name is not None:
                other = f"--config {config_file}" if config_file else name
                self.report.add(
                    command_line(str(override.input_line)), f"the experiment is {other} already: choose one"
                )
                groups = [other_one for other_one in groups if other_one is not override]
            else:
                self.experiment = str(override.value())
        if name is None:
            return groups
        if config_file is not None:
            self.report.add(command_line(name), f"--config {config_file} is given already: choose one")
            return groups
        if self.folders.find(f"{EXPERIMENT}/{name}") is None:
            self.report.add(command_line(name), unknown_option(self.folders, EXPERIMENT, name), absent=())
            return groups
        self.experiment = name
        return [Override(OverrideType.CHANGE, EXPERIMENT, None, name, input_line=name), *groups]

    def check_primary(self) -> None:
        """Note a config.yaml of some other tool in the user's folder: it would stand before the packaged one."""
        document = self.repository.document(PRIMARY)
        defaults = document.values.get("defaults") if document else None
        if document and not document.broken and not _names_experiment(defaults):
            message = "its defaults list has no experiment: rename this file, or choose a folder with --config-dir"
            self.report.add(document.place(("defaults",)), message)
            packaged = self.folders.paths[-1] / f"{PRIMARY}.yaml"
            self.repository.documents[PRIMARY] = read_document(packaged, self.report)

    def stored(self, config_file: Path, groups: list[Override]) -> list[Override]:
        """Make a stored configuration the primary one; chosen groups replace what it says."""
        if not config_file.is_file():
            self.report.add(Place("--config"), f"no file {str(config_file)!r}: name a stored YAML", absent=())
            document = Document(config_file)
        else:
            document = read_document(config_file.absolute(), self.report)
        if "defaults" in document.values:
            message = "a stored configuration has no defaults list: put it under conf/experiment, run it by name"
            self.report.add(document.place(("defaults",)), message, absent=())
        keep = {g.key_or_group for g in groups}
        document.values = {k: v for k, v in document.values.items() if k != "defaults" and k not in keep}
        if document.broken:
            self.report.absent.add(())
        self.repository.documents[PRIMARY] = document
        self.tree.origin = document.place(())
        kept = [group for group in groups if not group.is_delete()]
        for override in kept:
            override.type = OverrideType.ADD
        return kept

    def merge_files(self, groups: list[Override]) -> None:
        """Let Hydra order the files, and merge them."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                defaults = create_defaults_list(
                    self.repository, PRIMARY, groups, prepend_hydra=False, skip_missing=False
                ).defaults
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            self.defaults_mistake(error, groups)
            return
        for warning in caught:
            self.report.warn(str(warning.message))
        for default in defaults:
            self.merge_document(str(default.config_path), default.package)

    def merge_document(self, name: str, package: str | None) -> None:
        """Merge one file at its package."""
        loc = _loc_of_package(package)
        document = self.repository.document(name)
        if document is None:
            group, _, option = name.rpartition("/")
            self.report.add(self.written_default(name), self.unknown(group, option), absent=loc)
            return
        if document.broken:
            self.report.absent.add(loc)
        values = {key: value for key, value in document.values.items() if key != "defaults"}
        self.tree.merge(loc, values, document.place, self.report)
        for path in self.folders.unread(name.rpartition("/")[0]):
            if path.stem == name.rpartition("/")[2]:
                self.report.add(Place(shown(path), 1, 1), f"is not read: rename it to {path.stem}.yaml")
            else:
                self.report.warn(f"{shown(path)} is not read: rename it to {path.stem}.yaml")

    def written_default(self, name: str) -> Place:
        """Return where a defaults list names `name`."""
        option = name.rpartition("/")[2]
        for document in self.repository.documents.values():
            for index, item in enumerate(document.values.get("defaults", [])):
                if isinstance(item, dict):
                    for key, value in item.items():
                        if value == option:
                            return document.place(("defaults", index, key))
                elif str(item).split("@")[0].rpartition("/")[2] == option:
                    return document.place(("defaults", index))
        return Place("the defaults list")

    def defaults_mistake(self, error: Exception, groups: list[Override]) -> None:
        """Note what Hydra finds wrong with a defaults list."""
        text = " ".join(line.strip() for line in str(error).splitlines() if not line.startswith("To append"))
        documents = self.repository.documents
        named = [d for name, d in documents.items() if f"'{name}'" in text or f"In {name}:" in text]
        if not named and self.experiment:
            named = [d for name, d in documents.items() if name == f"{EXPERIMENT}/{self.experiment}"]
        document = named[-1] if named else documents[PRIMARY]
        deletion = next((g for g in groups if g.is_delete() and f"'{str(g.input_line)[1:]}'" in text), None)
        if deletion:
            place = command_line(str(deletion.input_line))
            self.report.add(place, "this experiment has no such choice to leave out", absent=())
            return
        hint = "a group is chosen from an experiment as '- override /group: option'"
        self.report.add(document.place(("defaults",)), f"defaults: {text} ({hint})", absent=())

    def bring_dataset(self, dataset_id: str) -> bool:
        """Put conf/dataset/<id>.yaml into `datasets`, if it is there and not yet in; whether it is in now."""
        document = self.repository.document(f"dataset/{dataset_id}")
        own_id = document.values.get("dataset_id", MISSING) if document else None
        if document and isinstance(own_id, str) and own_id not in (MISSING, dataset_id) and "${" not in own_id:
            message = f"dataset_id: found {own_id!r}, allowed: {dataset_id!r}, the file's name, by which it is found"
            self.report.add(document.place(("dataset_id",)), message)
        return self._bring(("datasets", dataset_id), document)

    def bring_named(self, group: str, name: str) -> bool:
        """Put a group's file with that name or id (`model_id`, …) into its place (`models`); whether it is in now."""
        names = [name, *self.folders.options(group)]
        found = (document for one in names if (document := self.repository.document(f"{group}/{one}")))
        named = self.repository.document(f"{group}/{name}")
        document = named or next((one for one in found if one.values.get(f"{group}_id") == name), None)
        return self._bring((f"{group}s", name), document)

    def _bring(self, loc: Loc, document: Document | None) -> bool:
        """Put a file at a place where nothing is yet; whether something is there now."""
        if self.tree.get(loc) is not ABSENT:
            return True
        if document is None:
            return False
        if "defaults" in document.values:
            message = "what is named by its id has no defaults list: write its keys out"
            self.report.add(document.place(("defaults",)), message, absent=loc)
        if document.broken:
            self.report.absent.add(loc)
        values = {key: value for key, value in document.values.items() if key != "defaults"}
        self.tree.merge(loc, values, document.place, self.report)
        return True

    def name_it(self) -> None:
        """Call the experiment after its file where it has no name of its own."""
        if self.experiment and self.tree.get(("name",)) in (ABSENT, MISSING):
            document = self.repository.document(f"{EXPERIMENT}/{self.experiment}")
            place = Place(shown(document.path), 1, 1) if document else command_line(self.experiment)
            self.tree.delete(("name",))
            self.tree.merge(("name",), self.experiment, lambda _: place, self.report)


def _names_experiment(defaults: Any) -> bool:
    return isinstance(defaults, list) and any(isinstance(item, dict) and EXPERIMENT in item for item in defaults)


def _loc_of_key(key: str) -> Loc:
    # a.b[c] is a.b.c
    return tuple(int(part) if part.isdecimal() else part for part in KEY_PART.findall(key.lstrip("+~")) or [""])


def change_of(override: Override) -> Change:
    """Return what an override changes."""
    loc = _loc_of_key(override.key_or_group)
    return Change(ACTIONS[override.type], loc, override.value(), str(override.input_line))


def _loc_of_package(package: str | None) -> Loc:
    return tuple(package.split(".")) if package and package != "_global_" else ()
