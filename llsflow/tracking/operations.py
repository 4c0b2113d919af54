"""Every write to the store as a function that may be done twice: a spool replayed after a crash changes nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llsflow.schema.traces import TurnTrace
from llsflow.tracking.spans import put
from llsflow.tracking.spool import Operation

REF = "llsflow.ref"
"""Tag of a run that was begun while the store was away: its id before it had one."""

T = TypeVar("T")


@dataclass
class Target:
    """The run in the store that operations are applied to."""

    client: Any
    experiment_id: str
    run_id: str
    server: bool = False
    """The store is an MLflow server, not a database of ours."""
    reopened: bool = False
    """The run was there before this process: its curves may already hold the points that come again."""
    steps: dict[str, set[int]] = field(default_factory=dict)
    """Of a re-opened run, by metric: the steps that the store held when this process first wrote to it."""


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield `items` in pieces that the store takes in one batch."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def find_run(target: Target, ref: str) -> str:
    """Return the id of the run that carries this reference, or an empty text."""
    found = target.client.search_runs([target.experiment_id], f"tags.`{REF}` = '{ref}'", max_results=1)
    return found[0].info.run_id if found else ""


def open_run(target: Target, op: Operation) -> str:
    """Create the run, unless an earlier try has."""
    ref, tags = op["tags"].get(REF), dict(op["tags"])
    target.run_id = find_run(target, ref) if ref else ""
    if not target.run_id:
        parent = tags.get("mlflow.parentRunId", "")
        if parent.startswith("pending-"):
            tags["mlflow.parentRunId"] = find_run(target, parent) or parent
        run = target.client.create_run(target.experiment_id, start_time=op["time"], tags=tags, run_name=op["name"])
        target.run_id = run.info.run_id
    return target.run_id


def log_params(target: Target, op: Operation) -> str:
    """Write the parameters that the run does not have: MLflow refuses to change one."""
    from mlflow.entities import Param

    held = target.client.get_run(target.run_id).data.params
    new = [Param(key, value) for key, value in op["params"].items() if key not in held]
    for batch in chunks(new, 100):
        target.client.log_batch(target.run_id, params=batch)
    return ""


def log_metrics(target: Target, op: Operation) -> str:
    """Write `[key, value, milliseconds, step]` points, without those that a re-opened run holds."""
    from mlflow.entities import Metric

    points = [Metric(*point) for point in op["points"] if not _held(target, point[0], point[3])]
    for batch in chunks(points, 1000):
        target.client.log_batch(target.run_id, metrics=batch)
    return ""


def _held(target: Target, key: str, step: int) -> bool:
    if not target.reopened:
        return False
    if key not in target.steps:
        history = target.client.get_metric_history(target.run_id, key)
        target.steps[key] = {metric.step for metric in history}
    steps = target.steps[key]
    # a metric that only ever had step 0 is a summary, not a curve: the new value replaces the old
    return step in steps and steps != {0}


def log_dataset(target: Target, op: Operation) -> str:
    """Name the data that the run read, with the first 32 digits of its sha256 and the whole in tags."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=op["name"][:500],
        digest=op["digest"][:32],
        source_type="local",
        source=json.dumps({"uri": op["source"]}),
        profile=json.dumps({"num_rows": op["rows"]}),
    )
    tags = [InputTag("mlflow.data.context", op["context"]), InputTag("sha256", op["digest"])]
    target.client.log_inputs(target.run_id, datasets=[DatasetInput(dataset, tags)])
    return ""


def log_text(target: Target, op: Operation) -> str:
    """Write a text artifact."""
    target.client.log_text(target.run_id, op["text"], op["path"])
    return ""


def log_file(target: Target, op: Operation) -> str:
    """Copy a file, or all of a folder, to the artifacts."""
    source = Path(op["file"])
    copy = target.client.log_artifacts if source.is_dir() else target.client.log_artifact
    copy(target.run_id, str(source), op["folder"] or None)
    return ""


def log_table(target: Target, op: Operation) -> str:
    """Write a table as the run comparison view reads it, and name it in the tag where that view looks."""
    tag = "mlflow.loggedArtifacts"
    target.client.log_text(target.run_id, json.dumps(op["table"], ensure_ascii=False), op["path"])
    entry = {"path": op["path"], "type": "table"}
    listed = json.loads(target.client.get_run(target.run_id).data.tags.get(tag, "[]"))
    if entry not in listed:
        target.client.set_tag(target.run_id, tag, json.dumps([*listed, entry]))
    return ""


def set_tags(target: Target, op: Operation) -> str:
    """Write tags, over older ones."""
    from mlflow.entities import RunTag

    for batch in chunks([RunTag(key, value) for key, value in op["tags"].items()], 100):
        target.client.log_batch(target.run_id, tags=batch)
    return ""


def log_model(target: Target, op: Operation) -> str:
    """Create the LoggedModel that points at a folder of ours, or find the one of an earlier try."""
    from mlflow.entities import LoggedModelOutput

    model_id = find_model(target, op["folder"], op["name"])
    if not model_id:
        tags = {"mlflow.model.isExternal": "true", "llsflow.folder": op["folder"], **op["tags"]}
        model = target.client.create_logged_model(
            target.experiment_id, op["name"], target.run_id, tags, op["params"], "llm"
        )
        model_id = model.model_id
        _log_model_file(target, model)
        target.client.finalize_logged_model(model_id, "READY")
        target.client.log_outputs(target.run_id, [LoggedModelOutput(model_id, step=0)])
    _log_model_metrics(target, model_id, op)
    return str(model_id)


def _log_model_file(target: Target, model: Any) -> None:
    # the registry takes only models that have this file
    from mlflow.models.utils import get_external_mlflow_model_spec

    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(model).save(str(Path(folder) / "MLmodel"))
        target.client.log_model_artifacts(model.model_id, folder)


def _log_model_metrics(target: Target, model_id: str, op: Operation) -> None:
    from mlflow.entities import Metric

    for name, digest in op["datasets"] or [(None, None)]:
        metrics = [
            Metric(key, value, op["time"], 0, model_id, name, digest and digest[:32], target.run_id)
            for key, value in op["metrics"].items()
        ]
        if metrics:
            target.client.log_batch(target.run_id, metrics=metrics)


def find_model(target: Target, folder: str, name: str | None = None) -> str:
    """Return the id of this run's LoggedModel of that folder (and name), or an empty text."""
    models = target.client.search_logged_models([target.experiment_id], f"source_run_id = '{target.run_id}'")
    found = (m for m in models if m.tags.get("llsflow.folder") == folder and name in (None, m.name))
    return next((str(m.model_id) for m in found), "")


def use_model(target: Target, op: Operation) -> str:
    """Name a LoggedModel that the run read."""
    from mlflow.entities import LoggedModelInput

    target.client.log_inputs(target.run_id, models=[LoggedModelInput(op["model_id"])])
    return ""


def register(target: Target, op: Operation) -> str:
    """Make a version of the registered model out of a LoggedModel, once, and move the aliases to it."""
    client, name = target.client, op["name"]
    model_id = op["model_id"] or find_model(target, op["folder"])
    model = client.get_logged_model(model_id)
    # a SQL store would look `models:/…` up in the store of the current folder, not in ours
    source = f"models:/{model_id}" if target.server else model.artifact_location
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((mv.version for mv in versions if mv.source == source), None)
    if version is None:
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        tags = {"llsflow.folder": op["folder"], "llsflow.model_id": model_id, **op["tags"]}
        made = client.create_model_version(name, source, target.run_id, tags, await_creation_for=0, model_id=model_id)
        version = made.version
    _link_version(client, model, {"name": name, "version": int(version)})
    for alias in op["aliases"]:
        client.set_registered_model_alias(name, alias, version)
    return str(version)


def _link_version(client: Any, model: Any, link: dict[str, Any]) -> None:
    tag = "mlflow.modelVersions"  # where the page of the LoggedModel looks
    links = json.loads(client.get_logged_model(model.model_id).tags.get(tag, "[]"))
    if not any(str(known["version"]) == str(link["version"]) for known in links if known["name"] == link["name"]):
        client.set_logged_model_tags(model.model_id, {tag: json.dumps([*links, link])})


def finish(target: Target, op: Operation) -> str:
    """Write how the run ended, and when."""
    target.client.set_terminated(target.run_id, op["status"], op["time"])
    return ""


def log_traces(target: Target, op: Operation) -> str:
    """Write turns of an agent; they are the run's."""
    traces = [TurnTrace.model_validate(one) for one in op["traces"]]
    of_run = [trace.model_copy(update={"run_id": target.run_id}) for trace in traces]
    put(target.client.tracking_uri, target.experiment_id, of_run)
    return ""


OPERATIONS: dict[str, Callable[[Target, Operation], str]] = {
    "open": open_run,
    "params": log_params,
    "metrics": log_metrics,
    "dataset": log_dataset,
    "text": log_text,
    "file": log_file,
    "table": log_table,
    "tags": set_tags,
    "traces": log_traces,
    "model": log_model,
    "use": use_model,
    "register": register,
    "finish": finish,
}


def apply(target: Target, op: Operation) -> str:
    """Do one operation; return the id or version that it made, if any."""
    return OPERATIONS[op["op"]](target, op)
