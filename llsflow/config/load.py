"""From a name and overrides to a checked experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llsflow.config.check import check, refuse_targets, warn_of_misread_scalars
from llsflow.config.folders import Folders, Registered
from llsflow.config.report import ABSENT, Report, dotted
from llsflow.config.tree import Tree
from llsflow.errors import ConfigError
from llsflow.schema.benchmarks import CHAMPION
from llsflow.schema.datasets import HELD_OUT
from llsflow.schema.experiment import Experiment, Loc

if TYPE_CHECKING:
    from llsflow.config.compose import Composer

DATA = ("recipe", "training_config", "data_config")
DATASET_REFERENCES: tuple[Loc, ...] = (
    (*DATA, "dataset_id"),
    (*DATA, "validation_dataset_id"),
    ("benchmark", "dataset_id"),
)
BASELINE: Loc = ("benchmark", "baseline")
CANDIDATE: Loc = ("benchmark", "benchmark_config", "eval_candidate")
SCORING_PARAMS: Loc = ("benchmark", "benchmark_config", "scoring_params")


@dataclass(frozen=True)
class Loaded:
    """A checked experiment, and where every part of it was written."""

    experiment: Experiment
    resolved: dict[str, Any]
    """The composed tree as written, interpolations resolved, without the schema's defaults. It holds the values of
    environment variables: store `to_yaml(loaded)` instead."""
    overrides: tuple[str, ...]
    provenance: dict[str, str]
    """Dotted key -> `conf/recipe/sft_full.yaml:12:7`, or `command line: recipe.x=3`."""
    warnings: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    """Dotted key -> interpolation text of the values that come from environment variables, which are never stored."""


def load_experiment(
    name: str | None,
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    config_file: Path | None = None,
    registered: Registered | None = None,
) -> Loaded:
    """Compose, resolve and check an experiment.

    `name` is a file of conf/experiment; `config_file` is a configuration stored by an earlier run, instead of a name.
    Files of `config_dir` (./conf where there is one) shadow packaged ones. `registered` is asked for a data set, model
    or benchmark that no file names.

    Raises:
        ConfigError: with every mistake that can be told, each with its place. Mistakes between the parts (a data set
            that holds no rows out, ...) are told once each part is right by itself.
    """
    from llsflow.config.compose import Composer
    from llsflow.config.resolve import environment

    report = Report(typed=[*([name] if name else []), *overrides])
    folders = Folders.at(config_dir)
    composer = Composer(folders, report, registered)
    tree = composer.compose(name, overrides, config_file)
    resolved = _resolve_with_names(composer, tree, report)
    refuse_targets(resolved, tree, report)
    experiment = check(resolved, tree, folders, report)
    if report.found or experiment is None:
        raise ConfigError(report.mistakes())
    warn_of_misread_scalars(resolved, tree, report)
    return Loaded(
        experiment=experiment,
        resolved=resolved,
        overrides=tuple(overrides),
        provenance={dotted(loc): str(place) for loc, place in tree.places.items()},
        warnings=tuple(report.warnings),
        environment=environment(tree),
    )


def _resolve_with_names(composer: Composer, tree: Tree, report: Report) -> dict[str, Any]:
    """Resolve the tree with the files of what it names by id: data sets, models, tool groups, shields."""
    from llsflow.config.resolve import resolve

    # the ids may be interpolations, and the files that they name may hold some too: resolved twice
    first = Tree(resolve(tree, Report()))
    _bring_datasets(composer, tree, first, report)
    _bring_models(composer, tree, first, report)
    for loc, group, name in _agent_references(first):
        # a tool group may be named with one of its tools
        base = name.rpartition("/")[0] if group == "toolgroup" else ""
        if not composer.bring_named(group, name) and not (base and composer.bring_named(group, base)):
            report.add(tree.place(loc), f"{dotted(loc)}: {composer.unknown(group, name)}", absent=loc)
    return resolve(tree, report)


def _bring_datasets(composer: Composer, tree: Tree, first: Tree, report: Report) -> None:
    own = first.get(("dataset", "dataset_id"))
    unknown: list[tuple[Loc, str]] = []
    for loc in DATASET_REFERENCES:
        dataset_id = first.get(loc)
        if isinstance(dataset_id, str) and dataset_id:
            base = dataset_id.removesuffix(HELD_OUT)
            if base != own and not composer.bring_dataset(base):
                unknown.append((loc, base))
    for loc, base in unknown:
        inline = first.get(("datasets",))
        known = [own, *(inline if isinstance(inline, dict) else ())]
        also = [name for name in known if isinstance(name, str)]
        if own is ABSENT and report.touches(("dataset",)):
            continue
        sentence = composer.unknown("dataset", base, also)
        report.add(tree.place(loc), f"{dotted(loc)}: {sentence}", absent=loc)


def _bring_models(composer: Composer, tree: Tree, first: Tree, report: Report) -> None:
    own_model = first.get(("model", "model_id"))
    baseline = first.get(BASELINE)
    if isinstance(baseline, str) and baseline not in (own_model, CHAMPION) and not baseline.startswith((".", "/", "~")):
        found = composer.bring_named("model", baseline)
        if not found and "/" not in baseline:
            sentence = f"{composer.unknown('model', baseline)}; a folder is written as ./{baseline}"
            report.add(tree.place(BASELINE), f"{dotted(BASELINE)}: {sentence}", absent=BASELINE)
    for loc, model_id in _model_references(first):
        if model_id != own_model and not composer.bring_named("model", model_id):
            report.add(tree.place(loc), f"{dotted(loc)}: {composer.unknown('model', model_id)}", absent=loc)


def _agent_references(resolved: Tree) -> Iterator[tuple[Loc, str, str]]:
    """Yield the place, the group and the name of each tool group and shield of an agent that is evaluated."""
    for key, group in (("toolgroups", "toolgroup"), ("input_shields", "shield"), ("output_shields", "shield")):
        named = resolved.get((*CANDIDATE, "config", key))
        for place, one in enumerate(named if isinstance(named, list) else ()):
            name = one.get("name") if isinstance(one, dict) else one
            if isinstance(name, str) and name:
                yield (*CANDIDATE, "config", key, place), group, name


def _model_references(resolved: Tree) -> Iterator[tuple[Loc, str]]:
    """Yield the place and the name of every model that is named beside the experiment's own: those that score."""
    params = resolved.get(SCORING_PARAMS)
    for scorer_id, given in params.items() if isinstance(params, dict) else ():
        for key in ("judge_model", "embedding_model") if isinstance(given, dict) else ():
            asked = given.get(key)
            if isinstance(asked, str) and asked:
                yield (*SCORING_PARAMS, scorer_id, key), asked
