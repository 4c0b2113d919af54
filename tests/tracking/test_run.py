from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Run, Tracking
from tests.patience import PATIENCE_SECONDS


def stored(tracking: Tracking, run: Run) -> Any:
    return tracking._client.get_run(run.id)


def curve(tracking: Tracking, run: Run, key: str) -> list[tuple[int, float]]:
    history = tracking._client.get_metric_history(run.id, key)
    return [(point.step, point.value) for point in history]


def test_a_tree_of_runs_with_status_note_and_tags(tracking: Tracking) -> None:
    parent = tracking.open_run("pipeline", tags={"llsflow.plan": "abc"}, description="# What")
    child = tracking.open_run("train", parent_id=parent.id)
    child.finish("KILLED")
    parent.set_note("x" * 9000)
    parent.finish("FAILED")
    top, below = stored(tracking, parent), stored(tracking, child)
    assert (top.info.run_name, top.info.status, below.info.status) == ("pipeline", "FAILED", "KILLED")
    assert below.data.tags["mlflow.parentRunId"] == parent.id
    assert top.data.tags["llsflow.plan"] == "abc"
    assert len(top.data.tags["mlflow.note.content"]) == 8000
    assert top.info.end_time >= top.info.start_time


def test_description_is_the_note(tracking: Tracking) -> None:
    run = tracking.open_run("run", description="**what**")
    assert stored(tracking, run).data.tags["mlflow.note.content"] == "**what**"


def test_params_are_flat_and_within_the_limits(tracking: Tracking) -> None:
    run = tracking.open_run("run")
    run.log_params({"a": {"b": None, "c": [1, 2]}, "on": True, "text": "é", "long": "x" * 7000, "odd+key?": 1})
    run.log_params({f"p{i}": i for i in range(250)})
    params = stored(tracking, run).data.params
    assert (params["a.b"], params["a.c"], params["on"], params["text"]) == ("null", "[1, 2]", "true", "é")
    assert params["long"] == "x" * 5999 + "…"
    assert params["odd_key_"] == "1"
    assert [params[f"p{i}"] for i in range(250)] == [str(i) for i in range(250)]


def test_a_param_keeps_its_first_value(tracking: Tracking, caplog: pytest.LogCaptureFixture) -> None:
    run = tracking.open_run("run")
    run.log_params({"lr": 1})
    run.log_params({"lr": 2, "new": 3})
    assert stored(tracking, run).data.params == {"lr": "1", "new": "3"}
    assert caplog.text == ""


def test_numbers_that_are_not_finite(tracking: Tracking) -> None:
    run = tracking.open_run("run")
    run.log_metrics({"loss": math.nan}, 1)
    run.log_metrics({"loss": math.inf}, 2)
    run.log_metrics({"loss": 0.5}, 3)
    run.finish("FINISHED")
    values = [value for _, value in curve(tracking, run, "loss")]
    assert math.isnan(values[0])
    assert values[1] > 1e300
    assert values[2] == 0.5


def test_a_curve_arrives_whole_in_order_and_in_few_writes(tracking: Tracking) -> None:
    run = tracking.open_run("run")
    commits: list[object] = []
    count = commits.append
    event.listen(Engine, "commit", count)
    try:
        for step in range(1000):
            run.log_metrics({"train/loss": 1.0 / (step + 1), "train/lr": step * 1e-5}, step)
        run.flush()
    finally:
        event.remove(Engine, "commit", count)
    assert curve(tracking, run, "train/loss") == [(step, 1.0 / (step + 1)) for step in range(1000)]
    assert curve(tracking, run, "train/lr") == [(step, step * 1e-5) for step in range(1000)]
    # 2,000 points; one commit or two for each batch, where one point at a time makes thousands
    assert 0 < len(commits) < 60


def test_points_are_written_without_a_flush(tracking: Tracking) -> None:
    run = tracking.open_run("run")
    run.log_metrics({"x": 1.0}, 1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := curve(tracking, run, "x")):
        assert time.monotonic() < deadline
    assert found == [(1, 1.0)]


def test_resume_goes_on_in_the_same_run_without_double_points(tracking: Tracking) -> None:
    first = tracking.open_run("train")
    first.log_params({"lr": 1})
    for step in range(10):
        first.log_metrics({"loss": float(step), "seen": 1.0}, step)
    first.log_metrics({"seconds": 3.0})
    first.finish("FAILED")

    again = Tracking(TrackingConfig(experiment="exp"))
    second = again.open_run("train", run_id=first.id)
    assert second.id == first.id
    assert stored(again, second).info.status == "RUNNING"
    second.log_params({"lr": 2})
    for step in range(5, 15):  # the checkpoint was at step 5
        second.log_metrics({"loss": float(step)}, step)
    second.log_metrics({"seconds": 9.0})
    second.finish("FINISHED")
    assert curve(again, second, "loss") == [(step, float(step)) for step in range(15)]
    data = stored(again, second).data
    assert (data.params, data.metrics["seconds"]) == ({"lr": "1"}, 9.0)
    assert stored(again, second).info.status == "FINISHED"


@pytest.mark.parametrize("gone", ["0" * 32, "pending-0"])
def test_resume_of_a_run_that_is_gone_begins_a_new_one(tracking: Tracking, gone: str) -> None:
    run = tracking.open_run("train", run_id=gone)
    assert run.id != gone
    assert stored(tracking, run).info.status == "RUNNING"


def test_resume_of_a_deleted_run_begins_a_new_one(tracking: Tracking) -> None:
    first = tracking.open_run("train")
    tracking._client.delete_run(first.id)
    assert tracking.open_run("train", run_id=first.id).id != first.id


def test_dataset_has_digest_rows_and_context(tracking: Tracking) -> None:
    run = tracking.open_run("run")
    digest = "0123456789abcdef" * 4
    run.log_dataset("dates", digest, 20_000, "/data/dates.jsonl", "training")
    run.log_dataset("dates", digest, 20_000, "/data/dates.jsonl", "training")
    (read,) = stored(tracking, run).inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("dates", digest[:32])
    assert json.loads(read.dataset.profile) == {"num_rows": 20_000}
    assert {tag.key: tag.value for tag in read.tags} == {"mlflow.data.context": "training", "sha256": digest}
    assert stored(tracking, run).data.tags["sha256/dates"] == digest


def test_artifacts_lie_under_home(tracking: Tracking, tmp_path: Path, store_home: Path) -> None:
    run = tracking.open_run("run")
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "loss.png").write_bytes(b"\x89PNG")
    run.log_text("seed: 0\n", "config/resolved.yaml")
    run.log_file(folder / "loss.png", "report")
    run.log_file(folder, "all")
    artifacts = store_home / "mlflow" / "artifacts" / run.id / "artifacts"
    assert (artifacts / "config" / "resolved.yaml").read_text() == "seed: 0\n"
    assert (artifacts / "report" / "loss.png").read_bytes() == b"\x89PNG"
    assert (artifacts / "all" / "loss.png").exists()


def test_a_file_that_is_not_there_does_not_stop_the_run(
    tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracking.open_run("run")
    run.log_file(tmp_path / "nothing")
    run.log_text("after", "after.txt")
    run.finish("FINISHED")
    assert "kind 'file'" in caplog.text
    assert [item.path for item in tracking._client.list_artifacts(run.id)] == ["after.txt"]


def test_table_is_one_that_mlflow_reads(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)  # load_table asks the global store
    run = tracking.open_run("run")
    rows = [{"prompt": "a|b", "score": 1.0, "tags": ["x"]}, {"prompt": "é", "extra": math.nan}]
    run.log_table(rows, "eval/rows.json")
    run.log_table(rows, "eval/rows.json")
    table = tracking._client.load_table(tracking._experiment_id, "eval/rows.json", [run.id])
    assert table["prompt"].tolist() == ["a|b", "é"]
    assert table["tags"].tolist()[0] == '["x"]'
    listed = json.loads(stored(tracking, run).data.tags["mlflow.loggedArtifacts"])
    assert listed == [{"path": "eval/rows.json", "type": "table"}]


def test_model_is_linked_registered_and_not_copied(tracking: Tracking, tmp_path: Path) -> None:
    run = tracking.open_run("export")
    digest = "ab" * 32
    run.log_dataset("dates", digest, 10, "x", "eval")
    arguments = ("quickstart/1", tmp_path, {"lr": 1e-3}, {"eval/dates/accuracy": 0.97}, [("dates", digest)])
    model_id = run.log_model(*arguments)
    assert run.log_model(*arguments) == model_id
    version = run.register("quickstart", model_id, tmp_path, aliases=["champion"], tags={"gate": "pass"})
    assert run.register("quickstart", model_id, tmp_path, aliases=["champion"]) == version == "1"
    client = tracking._client
    model = client.get_logged_model(model_id)
    assert (model.name, model.status, model.source_run_id) == ("quickstart-1", "READY", run.id)
    assert (model.params, model.tags["llsflow.folder"]) == ({"lr": "0.001"}, str(tmp_path))
    (metric, *_) = model.metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("eval/dates/accuracy", 0.97, "dates")
    assert [output.model_id for output in stored(tracking, run).outputs.model_outputs] == [model_id]
    registered = client.get_model_version_by_alias("quickstart", "champion")
    assert (registered.version, registered.tags["gate"], registered.tags["llsflow.model_id"]) == (1, "pass", model_id)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "quickstart", "version": 1}]

    later = tracking.open_run("evaluate")
    later.use_model(model_id)
    assert [read.model_id for read in stored(tracking, later).inputs.model_inputs] == [model_id]
