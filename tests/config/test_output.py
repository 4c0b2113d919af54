"""YAML that reads back as the same record, secrets that stay out of it, and JSON Schema for editors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llsflow.config import json_schema, load_experiment, packaged_conf, to_yaml
from llsflow.errors import ConfigError
from llsflow.schema.experiment import Experiment

Write = Callable[[str, str], Path]
AWKWARD = ["on", "no", "~", "null", "0123", "12:30", "1e-4", "1_0", "2020-01-01", "??", "=", "<<", "", " a ", "a: b"]
AWKWARD += [
    "${x}",
    r"\${x}",
    r"\\${a}",
    "a\\",
    "{{ x }}",
    "line\nline\n\nend",
    "\ttab",
    "#no",
    "- a",
    "é\u2028\x85",
    "@a",
]
texts = st.sampled_from(AWKWARD) | st.text(max_size=30) | st.text(alphabet="\\${}x.: \n'\"", max_size=12)
"""Any text but ???, which always means a value that is still to be given."""
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.filter(bool), inner, max_size=3),
    max_leaves=8,
)


def test_the_record_comes_back_from_its_yaml(project: Path, write: Write) -> None:
    loaded = load_experiment("quickstart", [])
    text = to_yaml(loaded)
    assert text == to_yaml(loaded.experiment)
    assert load_experiment(None, [], config_file=write("a.yaml", text)).experiment == loaded.experiment
    assert list(yaml.safe_load(text)) == list(Experiment.model_fields)


@given(metadata=st.dictionaries(texts.filter(bool), values, max_size=4), description=texts)
@example(metadata={"a": r"\${x}", "b": "\\\\${oc.env:HOME}", "c": ["on", "1e-4", "12:30"]}, description="${a}")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_from_the_yaml(tmp_path: Path, metadata: dict[str, Any], description: str) -> None:
    base = load_experiment("quickstart", []).experiment
    assert base.dataset is not None
    dataset = base.dataset.model_copy(update={"metadata": metadata})
    experiment = base.model_copy(update={"dataset": dataset, "description": description})
    file = tmp_path / "stored.yaml"
    file.write_text(to_yaml(experiment), "utf-8")
    assert load_experiment(None, [], config_file=file).experiment == experiment


def test_values_of_the_environment_are_not_stored(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_TEST_URI", "sqlite:///with-a-password")
    monkeypatch.setenv("LLSFLOW_TEST_ID", "secret_id")
    write(
        "conf/dataset/env.yaml",
        """
        dataset_id: env
        uri: x.csv
        purpose: eval/question-answer
        metadata: {a.b: '${tracking.uri}', l: ['${oc.env:LLSFLOW_TEST_ID}']}
        """,
    )
    loaded = load_experiment(
        "quickstart",
        [
            "tracking.uri='${oc.env:LLSFLOW_TEST_URI}'",
            "benchmark.dataset_id=env",
            "model.model_id=${oc.env:LLSFLOW_TEST_ID}",
        ],
    )
    assert loaded.experiment.tracking.uri == "sqlite:///with-a-password"
    assert loaded.experiment.benchmark
    assert loaded.experiment.benchmark.benchmark_config.eval_candidate.model == "secret_id"
    text = to_yaml(loaded)
    assert "with-a-password" not in text
    assert "secret_id" not in text
    assert set(loaded.environment) == {
        "tracking.uri",
        "model.model_id",
        "benchmark.benchmark_config.eval_candidate.model",
        "datasets.env.metadata.a.b",
        "datasets.env.metadata.l.0",
    }
    again = load_experiment(None, [], config_file=write("stored.yaml", text))
    assert again.experiment == loaded.experiment


def test_an_unset_environment_variable_is_a_mistake(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLSFLOW_NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="'LLSFLOW_NOT_SET' not found"):
        load_experiment("quickstart", ["tracking.uri='${oc.env:LLSFLOW_NOT_SET}'"])
    loaded = load_experiment("quickstart", ["tracking.uri='${oc.env:LLSFLOW_NOT_SET,null}'"])
    assert loaded.experiment.tracking.uri is None


@pytest.mark.parametrize(
    "file", sorted(packaged_conf().rglob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_packaged_file_passes_the_schema_that_editors_use(file: Path) -> None:
    schema = json_schema(file.parent.name)
    jsonschema.Draft202012Validator.check_schema(schema)
    # YAML 1.1, which this parser reads, asks for a point in 2e-5; OmegaConf and editors read 1.2
    jsonschema.validate(yaml.safe_load(re.sub(r": (\d)(e-\d)", r": \1.0\2", file.read_text("utf-8"))), schema)


@pytest.mark.parametrize(
    ("group", "content"),
    [
        ("recipe", {"knid": "sft"}),
        ("recipe", {"kind": "sfd"}),
        ("recipe", {"training_config": {"n_epochs": "many"}}),
        ("trainer", {"devices": 0}),
        ("experiment", {"model": {"path": 3}}),
        (None, {"model": {"path": 3}}),
    ],
)
def test_an_editor_sees_the_mistake(group: str | None, content: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema(group))


def test_an_editor_takes_interpolations_and_values_to_be_given() -> None:
    content = {"n_epochs": "${other.key}", "max_steps_per_epoch": "???", "dtype": "${a}"}
    jsonschema.validate({"training_config": content}, json_schema("recipe"))


def test_the_schema_says_what_keys_mean() -> None:
    properties = json_schema("recipe")["properties"]
    assert properties["overlong"]["description"].startswith("What happens to a row over max_length")


def test_the_schema_of_an_unknown_group() -> None:
    with pytest.raises(
        ConfigError, match="known: experiment, model, dataset, agent, recipe, benchmark, trainer, tracking"
    ):
        json_schema("agents")
