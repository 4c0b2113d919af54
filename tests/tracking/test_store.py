from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llsflow.errors import StorageError, UnavailableError
from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking

Script = Callable[..., subprocess.Popen[str]]

FIRST_USE = """
    from llsflow.schema.experiment import TrackingConfig
    from llsflow.tracking import Tracking
    tracking = Tracking(TrackingConfig(experiment="exp"))
    tracking.connect()
    run = tracking.open_run("run")
    run.log_metrics({"x": 1.0}, 1)
    run.finish("FINISHED")
"""


def test_import_is_light(script: Script) -> None:
    out, err = script("""
        import sys, llsflow.tracking
        heavy = {"mlflow", "pandas", "numpy", "torch", "sqlalchemy", "httpx", "prefect", "lightning"}
        print(sorted(heavy & set(sys.modules)))
    """).communicate()
    assert (out.strip(), err) == ("[]", "")


def test_uri_comes_from_the_config_then_the_environment_then_home(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Tracking(TrackingConfig()).uri == f"sqlite:///{fresh_home}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:1/")
    assert Tracking(TrackingConfig()).uri == "http://host:1"
    monkeypatch.chdir(tmp_path)
    assert Tracking(TrackingConfig(uri="sqlite:///own.db")).uri == f"sqlite:///{tmp_path}/own.db"


def test_first_use_by_four_processes_at_once_is_quiet_and_makes_one_experiment(
    fresh_home: Path, script: Script, tmp_path: Path
) -> None:
    results = [(process.communicate(), process.wait()) for process in [script(FIRST_USE) for _ in range(4)]]
    assert results == [(("", ""), 0)] * 4
    assert list((tmp_path / "cwd").iterdir()) == []  # MLflow alone would leave mlruns/ or mlflow.db here
    with contextlib.closing(sqlite3.connect(fresh_home / "mlflow" / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        places = database.execute("SELECT artifact_location FROM experiments WHERE name='exp'").fetchall()
        statuses = database.execute("SELECT status FROM runs").fetchall()
    assert places == [((fresh_home / "mlflow" / "artifacts").as_uri(),)]
    assert statuses == [("FINISHED",)] * 4


def test_a_server_that_is_not_there_is_told_before_mlflow_is_imported(fresh_home: Path, script: Script) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: nobody answers, and nobody else takes it
        out, err = script(f"""
            import sys
            from llsflow.errors import UnavailableError
            from llsflow.schema.experiment import TrackingConfig
            from llsflow.tracking import Tracking
            try:
                Tracking(TrackingConfig(uri="http://me:pw@127.0.0.1:{taken.getsockname()[1]}")).connect()
            except UnavailableError as error:
                print(error, "mlflow" in sys.modules)
        """).communicate()
    assert "MLflow does not answer at http://me:***@127.0.0.1:" in out
    assert "tracking.uri" in out
    assert out.rstrip().endswith("False")
    assert err == ""


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "ftp://host/x"])
def test_a_uri_that_cannot_be_recorded_to(fresh_home: Path, uri: str) -> None:
    with pytest.raises(UnavailableError, match="takes http"):
        Tracking(TrackingConfig(uri=uri)).connect()


def test_a_file_that_is_no_database(fresh_home: Path) -> None:
    database = fresh_home / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    database.write_text("this is no database, it is a text of a user" * 9)
    with pytest.raises(UnavailableError, match="not a database: move it away"):
        Tracking(TrackingConfig()).connect()


def test_home_under_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StorageError, match="is a file, not a folder"):
        Tracking(TrackingConfig()).connect()


def test_read_only_home(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path is closed to other users
    monkeypatch.setenv("LLSFLOW_HOME", str(folder))
    folder.chmod(0o555)
    try:
        out, err = script("""
            import os
            from llsflow.errors import StorageError
            from llsflow.schema.experiment import TrackingConfig
            from llsflow.tracking import Tracking
            from llsflow.tracking.client import import_client
            import_client()  # the libraries may lie where only root reads
            if os.getuid() == 0:  # root may write anywhere
                os.setgid(65534)
                os.setuid(65534)
            try:
                Tracking(TrackingConfig()).connect()
            except StorageError as error:
                print(error)
        """).communicate()
    finally:
        shutil.rmtree(folder)
    assert f"cannot write to {folder}" in out
    assert "read-only" in out
    assert err == ""


def test_a_deleted_experiment_is_told(tracking: Tracking) -> None:
    tracking._client.delete_experiment(tracking._experiment_id)
    with pytest.raises(UnavailableError, match="'exp' was deleted: restore it"):
        Tracking(TrackingConfig(experiment="exp")).connect()


def test_page_of_a_run(tracking: Tracking) -> None:
    run = tracking.open_run("run")
    experiment = tracking._client.get_run(run.id).info.experiment_id
    layout = "workflowType=machine_learning"
    assert tracking.page(run.id) == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run.id}?{layout}"
    assert Tracking(TrackingConfig(uri="http://host:1/")).page("r").startswith("http://host:1/#/")
