"""The store fails in the middle of a run: the run goes on, and what was recorded arrives later."""

from __future__ import annotations

import contextlib
import logging
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Run, Tracking
from tests.patience import PATIENCE_SECONDS

Script = Callable[..., subprocess.Popen[str]]


@contextlib.contextmanager
def without_table(home: Path, table: str) -> Iterator[None]:
    """Take a table away from under the open store."""

    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(home / "mlflow" / "mlflow.db", timeout=PATIENCE_SECONDS)) as database:
            database.execute("PRAGMA legacy_alter_table=ON")
            database.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(table, "taken_away")
    try:
        yield
    finally:
        rename("taken_away", table)


def curve(tracking: Tracking, run: Run, key: str) -> list[tuple[int, float]]:
    history = tracking._client.get_metric_history(run.id, key)
    return [(point.step, point.value) for point in history]


def spooled(home: Path) -> list[Path]:
    return [path for path in (home / "mlflow" / "spool").rglob("*") if path.suffix == ".jsonl"]


def test_what_the_store_refused_arrives_in_order_and_is_warned_of_once(
    tracking: Tracking, store_home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracking.open_run("train")
    run.log_metrics({"loss": 0.0}, 0)
    run.flush()
    work = tmp_path / "work"
    work.mkdir()
    (work / "plot.svg").write_text("<svg/>")
    with without_table(store_home, "metrics"):
        for step in range(1, 400):
            run.log_metrics({"loss": float(step)}, step)
            if step % 100 == 0:
                run.flush()
        run.set_tags({"stage": "first"})
        run.set_tags({"stage": "second"})
        run.log_file(work / "plot.svg")
        work.rename(tmp_path / "done")  # as a step's folder is when the step is done
        assert len(spooled(store_home)) == 1
    run.finish("FINISHED")
    assert curve(tracking, run, "loss") == [(step, float(step)) for step in range(400)]
    stored = tracking._client.get_run(run.id)
    assert (stored.data.tags["stage"], stored.info.status) == ("second", "FINISHED")
    assert [item.path for item in tracking._client.list_artifacts(run.id)] == ["plot.svg"]
    assert spooled(store_home) == []
    assert list((store_home / "mlflow" / "spool").rglob("*.files")) == []
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 2
    assert "the run goes on" in warnings[0]
    assert "takes records again" in warnings[1]


def test_what_waited_is_written_before_what_comes_after(tracking: Tracking, store_home: Path) -> None:
    run = tracking.open_run("train")
    with without_table(store_home, "tags"):
        run.set_tags({"stage": "first"})
    run.set_tags({"stage": "second"})
    run.flush()
    assert tracking._client.get_run(run.id).data.tags["stage"] == "second"


def test_one_warning_for_all_runs(tracking: Tracking, store_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [tracking.open_run(name) for name in ("prepare", "train", "export")]
    with without_table(store_home, "params"):
        for run in runs:
            run.log_params({"a": 1})
    for run in runs:
        run.finish("FINISHED")
        assert tracking._client.get_run(run.id).data.params == {"a": "1"}
    assert caplog.text.count("the run goes on") == 1
    assert caplog.text.count("takes records again") == 1


def test_a_refusal_for_good_does_not_hold_up_what_follows(
    tracking: Tracking, store_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracking.open_run("train")
    run.use_model("m-that-does-not-exist")
    run.register("name", "m-that-does-not-exist", store_home)
    run.log_params({"after": 1})
    run.finish("FINISHED")
    stored = tracking._client.get_run(run.id)
    assert (stored.data.params, stored.info.status) == ({"after": "1"}, "FINISHED")
    assert spooled(store_home) == []
    assert "kind 'register' and it is left out" in caplog.text


def test_a_run_deleted_in_the_middle_does_not_stop_the_step(tracking: Tracking, store_home: Path) -> None:
    run = tracking.open_run("train")
    tracking._client.delete_run(run.id)
    run.log_metrics({"loss": 1.0}, 1)
    run.log_params({"a": 1})
    run.finish("FINISHED")
    assert spooled(store_home) == []


def test_runs_begun_while_the_store_is_away(tracking: Tracking, store_home: Path) -> None:
    with without_table(store_home, "runs"):
        parent = tracking.open_run("pipeline")
        child = tracking.open_run("train", parent_id=parent.id, tags={"llsflow.step": "train"})
        assert parent.id.startswith("pending-")
        memo = child.id
        child.log_params({"lr": 1})
        child.log_metrics({"loss": 0.5}, 3)
        assert child.log_model("m", store_home, {}, {}) == ""
        assert child.register("m", "", store_home, aliases=["champion"]) == ""
        child.finish("FAILED")
        assert len(spooled(store_home)) == 2
    # the next process, with the id that the first one noted down
    again = Tracking(TrackingConfig(experiment="exp"))
    resumed = again.open_run("train", run_id=memo)
    parent.finish("FINISHED")
    stored = again._client.get_run(resumed.id)
    assert len(resumed.id) == 32
    assert (stored.info.run_name, stored.info.status) == ("train", "RUNNING")
    assert stored.data.params == {"lr": "1"}
    assert curve(again, resumed, "loss") == [(3, 0.5)]
    top = again._client.get_run(parent.id)
    assert (top.info.run_name, top.info.status) == ("pipeline", "FINISHED")
    champion = again._client.get_model_version_by_alias("m", "champion")
    assert champion.run_id == resumed.id
    names = [found.info.run_name for found in again._client.search_runs([again._experiment_id])]
    assert sorted(names) == ["pipeline", "train"]
    assert spooled(store_home) == []


def test_the_child_of_a_run_begun_while_the_store_was_away_hangs_under_it(tracking: Tracking, store_home: Path) -> None:
    with without_table(store_home, "runs"):
        parent = tracking.open_run("pipeline")
        noted = parent.id
        early = tracking.open_run("prepare", parent_id=noted)
    parent.flush()
    early.flush()
    late = tracking.open_run("train", parent_id=noted)
    for child in (early, late):
        assert tracking._client.get_run(child.id).data.tags["mlflow.parentRunId"] == parent.id


DISK_FULL = """
    import logging, resource
    logging.basicConfig(format="%(message)s")
    from llsflow.schema.experiment import TrackingConfig
    from llsflow.tracking import Tracking
    tracking = Tracking(TrackingConfig(experiment="exp"))
    run = tracking.open_run("train")
    print(run.id)
    run.log_metrics({"loss": 0.0}, 0)
    run.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, -1))  # as a full disk: a file grows no further
    for step in range(1, 50):
        run.log_metrics({"loss": float(step)}, step)
    run.log_text("late", "late.txt")
    run.finish("FINISHED")
"""


def test_a_full_disk_neither_stops_the_run_nor_loses_its_record(store_home: Path, script: Script) -> None:
    process = script(DISK_FULL)
    out, err = process.communicate()
    assert process.returncode == 0
    assert len(err.splitlines()) == 1
    assert "MLflow does not take records (" in err
    assert len(spooled(store_home)) == 1
    tracking = Tracking(TrackingConfig(experiment="exp"))
    tracking.connect()  # the next run writes what the last one could not
    history = tracking._client.get_metric_history(out.strip(), "loss")
    assert [point.step for point in history] == list(range(50))
    assert tracking._client.get_run(out.strip()).info.status == "FINISHED"
    assert spooled(store_home) == []


KILLED = """
    from llsflow.schema.experiment import TrackingConfig
    from llsflow.tracking import Tracking
    tracking = Tracking(TrackingConfig(experiment="exp"))
    run = tracking.open_run("train")
    print(run.id, flush=True)
    for step in range(600):
        run.log_metrics({"loss": float(step)}, step)
    run.flush()
    for step in range(600, 700):
        run.log_metrics({"loss": float(step)}, step)
    print("killme", flush=True)
    input()
"""


def test_kill_loses_at_most_the_tail_and_the_resumed_curve_is_whole(store_home: Path, script: Script) -> None:
    process = script(KILLED, stdin=subprocess.PIPE)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline() == "killme\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    tracking = Tracking(TrackingConfig(experiment="exp"))
    run = tracking.open_run("train", run_id=run_id)
    assert run.id == run_id
    kept = curve(tracking, run, "loss")
    assert 600 <= len(kept) <= 700
    assert kept == [(step, float(step)) for step in range(len(kept))]
    for step in range(500, 1000):  # from the last checkpoint on
        run.log_metrics({"loss": float(step)}, step)
    run.finish("FINISHED")
    assert curve(tracking, run, "loss") == [(step, float(step)) for step in range(1000)]


def test_a_run_that_nobody_finished_is_written_at_exit(store_home: Path, script: Script) -> None:
    out, err = script("""
        from llsflow.schema.experiment import TrackingConfig
        from llsflow.tracking import Tracking
        run = Tracking(TrackingConfig(experiment="exp")).open_run("train")
        run.log_metrics({"loss": 1.0}, 1)
        print(run.id)
        raise SystemExit(3)
    """).communicate()
    tracking = Tracking(TrackingConfig(experiment="exp"))
    tracking.connect()
    assert len(tracking._client.get_metric_history(out.strip(), "loss")) == 1
    assert err == ""


def test_another_process_leaves_the_spool_of_a_living_one_alone(tracking: Tracking, store_home: Path) -> None:
    run: Any = tracking.open_run("train")
    with without_table(store_home, "params"):
        run.log_params({"a": 1})
        (waiting,) = spooled(store_home)
        with contextlib.closing(sqlite3.connect(":memory:")):
            Tracking(TrackingConfig(experiment="exp")).connect()
        assert waiting.exists()
    Tracking(TrackingConfig(experiment="exp")).connect()
    assert waiting.exists()
    run.flush()
    assert not waiting.exists()
