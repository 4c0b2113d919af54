"""conf/deployment: every schedule, checked together with the experiment that it names."""

from __future__ import annotations

from pathlib import Path

from llsflow.config.folders import Folders, shown, unknown_option
from llsflow.config.load import load_experiment
from llsflow.config.report import Place, Report
from llsflow.config.standing import load_standing
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.deployment import Deployment

DEPLOYMENT = "deployment"


def load_deployments(config_dir: Path | None = None) -> list[Deployment]:
    """Return every deployment of conf/deployment, by name; files of `config_dir` (./conf) shadow packaged ones.

    Raises:
        ConfigError: every mistake of every file, and of every experiment as it is named there.
    """
    folders = Folders.at(config_dir)
    report = Report()
    found: list[Deployment] = []
    mistakes: list[Mistake] = []
    for name in folders.options(DEPLOYMENT):
        deployment = _load(name, folders, report)
        if deployment is not None:
            found.append(deployment)
            mistakes += _of_experiment(deployment, folders, config_dir)
    if report.found or mistakes:
        raise ConfigError([*report.mistakes(), *mistakes])
    return found


def _load(name: str, folders: Folders, report: Report) -> Deployment | None:
    option = f"{DEPLOYMENT}/{name}"
    deployment = load_standing(Deployment, option, [], folders, report, noun="a deployment", given={"name": name})
    if deployment is not None and deployment.name != name:
        report.add(_place(name, folders), f"name: found {deployment.name!r}, allowed: {name!r}, the file's name")
    return deployment


def _of_experiment(deployment: Deployment, folders: Folders, config_dir: Path | None) -> list[Mistake]:
    """Return what is wrong with the experiment that a deployment names, under its overrides."""
    place = _place(deployment.name, folders)
    if folders.find(f"experiment/{deployment.experiment}") is None:
        return [Mistake(str(place), f"experiment: {unknown_option(folders, 'experiment', deployment.experiment)}")]
    try:
        load_experiment(deployment.experiment, deployment.overrides, config_dir=config_dir)
    except ConfigError as error:
        told = (f"{mistake.where}: {mistake.message}" for mistake in error.mistakes)
        return [Mistake(str(place), f"its experiment {deployment.experiment}: {text}") for text in told]
    return []


def _place(name: str, folders: Folders) -> Place:
    path = folders.find(f"{DEPLOYMENT}/{name}")
    return Place(shown(path) if path else name, 1, 1)
