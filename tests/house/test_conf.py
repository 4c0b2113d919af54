"""Every YAML of conf/ is a case: it composes, checks, says what it is, and reads back from its stored form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llsflow.config import (
    Loaded,
    list_options,
    load_deployments,
    load_experiment,
    load_server,
    packaged_conf,
    resolve_conf_uri,
    to_yaml,
)
from llsflow.config.named import AGENTS, SHIELDS, TOOLGROUPS
from llsflow.errors import ConfigError
from llsflow.plan import compile_plan
from tests.models.rerankers import cross_encoder

CONF = packaged_conf()
NAMES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
GIVEN = {
    "dataset.uri": "rows.jsonl",
    "model.path": "./model",
    "model.endpoint.base_url": "http://127.0.0.1:8000/v1",
}
"""What a person has to give where a file says ???."""
BASE = {
    "model": "quickstart",
    "dataset": "sft",
    "recipe": "sft",
    "benchmark": "sft",
    "trainer": "quickstart",
    "tracking": "quickstart",
}
OTHER_BASE = {
    **{"model/endpoint": "eval", "model/bm25": "rerank", "model/reranker": "rerank"},
    **{"benchmark/help_questions": "rerank", "dataset/help_questions": "rerank"},
    **{"benchmark/arithmetic": "calculator", "dataset/arithmetic": "calculator"},
    "dataset/arithmetic_held_out": "calculator",
}
"""Where an option goes with another experiment than the rest of its group."""
PREFERENCES = ("dataset/date_preferences", "recipe/dpo_full", "recipe/dpo_lora")
"""What goes with preferences."""

STANDING = ("server", "deployment", "toolgroup", "shield", "agent")
"""Groups whose files are no part of an experiment."""
PARTS = [name for name in NAMES if name != "config" and name.partition("/")[0] not in STANDING]


def load(name: str) -> Loaded:
    """Load an experiment, or a group's option in an experiment that can take any option of it."""
    group, _, option = name.rpartition("/")
    if group == "experiment":
        experiment, overrides = option, []
    else:
        base = OTHER_BASE.get(name, "date_preferences" if name in PREFERENCES else BASE[group])
        experiment, overrides = base, [f"{group}={option}"]
    chosen = {override.partition("=")[0]: override.partition("=")[2] for override in overrides}
    text = "".join((CONF / f"{n}.yaml").read_text("utf-8") for n in _files(experiment, chosen))
    given = [f"{key}={value}" for key, value in GIVEN.items() if f"{key.rpartition('.')[2]}: ???" in text]
    if name.startswith("dataset/") and "eval/" in text:
        # rows to evaluate on are no training data: they are what a benchmark names
        return load_experiment(OTHER_BASE.get(name, "quickstart"), [f"benchmark.dataset_id={option}"])
    if name.startswith("dataset/") and "hold_out" not in text:
        given.append("recipe.training_config.data_config.validation_dataset_id=null")
    return load_experiment(experiment, [*overrides, *given])


def _files(experiment: str, chosen: dict[str, str]) -> list[str]:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text("utf-8")
    pairs = dict(line.split("override /")[1].split(": ") for line in text.splitlines() if "override /" in line)
    return [f"{group}/{option.strip()}" for group, option in {**pairs, **chosen}.items()]


@pytest.mark.parametrize("name", PARTS)
def test_every_file_compiles_to_a_plan(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "model/reranker":
        cross_encoder(tmp_path / "model")
    else:
        shutil.copytree(tiny_folder, tmp_path / "model")
    rows = [{"prompt": f"question {number}", "completion": "answer"} for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plan = compile_plan(load(name).experiment)
    assert plan.steps[-1].kind == "record"
    assert len(plan.steps) > 1
    assert len({step.key for step in plan.steps}) == len(plan.steps)


@pytest.mark.parametrize("name", PARTS)
def test_every_file_composes_and_checks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(name)
    assert loaded.warnings == ()
    assert any(f"/{name}.yaml:" in place for place in loaded.provenance.values()), f"{name} took no part"
    stored = tmp_path / "stored.yaml"
    stored.write_text(to_yaml(loaded), "utf-8")
    assert load_experiment(None, [], config_file=stored).experiment == loaded.experiment


def test_every_file_that_stands_by_itself_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (CONF / "server").glob("*.yaml"):
        load_server([f"server={path.stem}"])
    deployments = {deployment.name: deployment for deployment in load_deployments()}
    assert set(deployments) == {path.stem for path in (CONF / "deployment").glob("*.yaml")}
    assert all(deployment.paused for deployment in deployments.values()), "an example that runs unasked"


def test_every_file_that_is_named_checks_or_says_what_it_leaves_open() -> None:
    for named in (TOOLGROUPS, SHIELDS, AGENTS):
        complete = {path.stem for _, _, path in named.complete()}
        for path in (CONF / named.group).glob("*.yaml"):
            if "???" in path.read_text("utf-8"):
                with pytest.raises(ConfigError, match="open: write a file of your own"):
                    named.find(path.stem)
            else:
                assert named.find(path.stem)
            assert ("???" not in path.read_text("utf-8")) is (path.stem in complete)


def test_every_file_says_what_it_is() -> None:
    assert NAMES
    for name in NAMES:
        first = (CONF / f"{name}.yaml").read_text("utf-8").splitlines()[0]
        assert first.startswith("# "), name
        assert not first.startswith("# @"), name
    assert all(option.description for options in list_options(CONF).values() for option in options)


def test_an_id_is_its_files_name() -> None:
    for group, key in (("dataset", "dataset_id"), ("benchmark", "benchmark_id")):
        for path in (CONF / group).glob("*.yaml"):
            assert f"\n{key}: {path.stem}\n" in path.read_text("utf-8")


def test_no_file_names_code_or_has_an_ending_that_nothing_reads() -> None:
    assert not list(CONF.rglob("*.yml"))
    assert not [path for path in CONF.rglob("*.yaml") if "_target_" in path.read_text("utf-8")]


def test_data_that_comes_along_is_there() -> None:
    for path in (CONF / "dataset").glob("*.yaml"):
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("uri: conf://"):
                assert resolve_conf_uri(line.partition(": ")[2], CONF).is_file()
