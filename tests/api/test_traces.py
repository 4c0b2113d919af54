"""Traces on their way to a real MLflow store, by a real process aside."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from llsflow.agents.traces import EndedTurn, trace_of
from llsflow.api import traces
from llsflow.api.aside import Aside
from llsflow.api.traces import TraceShipper
from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking
from llsflow.tracking.traces import write_traces
from tests.patience import PATIENCE_SECONDS

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def turn(turn_id: str, **fields: Any) -> EndedTurn:
    of = {"agent_id": "a", "name": "bot", "model": "m", "session_id": "s", "started_at": NOW, "ended_at": NOW}
    empty: dict[str, Any] = {"messages": [], "output": None, "steps": (), "before": 0, "given": {}, "error": None}
    return EndedTurn(**{**of, **empty, "turn_id": turn_id, **fields})


def written() -> list[str]:
    """Return the turns in the store."""
    tracking = Tracking(TrackingConfig(experiment="agents"))
    tracking.connect()
    found = tracking._client.search_traces(locations=[tracking._experiment_id], max_results=1000)
    return sorted(trace.info.trace_metadata["llsflow.turn_id"] for trace in found)


def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database with the schema: to make it takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLSFLOW_HOME", str(folder))
        tracking = Tracking(TrackingConfig(experiment="of-the-fixture"))
        tracking.connect()
        tracking.close()
    with contextlib.closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow" / "mlflow.db"


@pytest.fixture(autouse=True)
def store_folder(llsflow_home: Path, empty_store: Path) -> Path:
    """Return the folder of this home's store, which has its schema."""
    folder = llsflow_home / "mlflow"
    folder.mkdir(parents=True)
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder


@contextlib.contextmanager
def out_of_reach(folder: Path) -> Iterator[None]:
    """Put the store away, and a file in the place of its folder."""
    away = folder.rename(folder.with_name("away"))
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time to start the process."""
    monkeypatch.setattr(traces, "CLOSING_SECONDS", 120.0)


@pytest.fixture
def shipper() -> Iterator[TraceShipper]:
    """One that writes to this home."""
    made = TraceShipper("agents")
    yield made
    made.close()


def test_what_is_taken_is_written(shipper: TraceShipper, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(120):
        shipper.take(turn(f"{number:03}"))
    shipper.close()
    assert written() == [f"{number:03}" for number in range(120)]
    assert shipper.dropped == 0
    assert caplog.records == []


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_everything_goes_before_the_process_that_writes() -> None:
    aside = Aside(processes=1)
    try:
        before = aside.run(niceness)
        for _ in range(2):
            aside.run(traces.write_behind, [], None, "agents")
            assert aside.run(niceness) == max(before, traces.NICENESS)
    finally:
        aside.close()


def test_a_store_that_cannot_be_written_gets_them_later(
    shipper: TraceShipper, store_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with out_of_reach(store_folder):
        shipper.take(turn("1"))
        until(lambda: shipper._pause > 1)  # it was tried twice
        shipper.take(turn("2"))
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "a part of this path is a file, not a folder" in caplog.text
        assert "turns go on" in caplog.text
    until(lambda: "takes traces again" in caplog.text)
    shipper.close()
    assert written() == ["1", "2"]
    assert len(caplog.records) == 2


def test_a_killed_process_is_replaced(shipper: TraceShipper) -> None:
    shipper.take(turn("1"))
    until(lambda: not shipper._waiting and not shipper._under_way)
    os.kill(shipper._aside.run(os.getpid), signal.SIGKILL)
    shipper.take(turn("2"))
    until(lambda: not shipper._waiting and not shipper._under_way)
    assert written() == ["1", "2"]


def test_what_cannot_be_written_before_the_end_waits_on_disk(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traces, "CLOSING_SECONDS", 0.0)
    shipper = TraceShipper("agents")
    for number in range(150):
        shipper.take(turn(f"{number:03}", error="half a pair \ud800"))
    shipper.close()
    assert "150 traces wait in " in caplog.text
    shipper.take(turn("late"))
    assert shipper.dropped == 1
    write_traces([trace_of(turn("next"))], None, "agents")
    assert written() == [*(f"{number:03}" for number in range(150)), "next"]
    assert list((store_folder / "spool" / "traces").rglob("*.jsonl")) == []


def test_of_traces_that_wait_the_oldest_are_dropped_and_it_is_told_once(
    monkeypatch: pytest.MonkeyPatch, store_folder: Path, shipper: TraceShipper, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traces, "WAITING_TRACES", 5)
    with out_of_reach(store_folder):
        for number in range(3):
            shipper.take(turn(f"{number}"))
        until(lambda: shipper._pause > 0)
        for number in range(3, 12):
            shipper.take(turn(f"{number}"))
        until(lambda: "oldest are dropped" in caplog.text)
    shipper.close()
    assert written() == sorted(["7", "8", "9", "10", "11"])
    assert shipper.dropped == 7
    assert caplog.text.count("oldest are dropped") == 1


def test_many_traces_that_nobody_takes_stay_within_bounds(
    store_folder: Path, shipper: TraceShipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "CLOSING_SECONDS", 0.0)
    process = psutil.Process()
    before = process.memory_info().rss
    with out_of_reach(store_folder):
        for number in range(10_000):
            said = [{"role": "user", "content": f"{number}" + "x" * 20_000}]
            shipper.take(turn(f"{number}", messages=said))
    assert shipper._bytes <= traces.WAITING_BYTES
    assert 9_000 > shipper.dropped > 8_000
    assert process.memory_info().rss - before < 200_000_000


def test_the_process_that_ships_imports_no_mlflow(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import sys
        from datetime import UTC, datetime
        from llsflow.agents.traces import EndedTurn
        from llsflow.api import traces

        if __name__ == "__main__":
            traces.CLOSING_SECONDS = 120.0
            shipper = traces.TraceShipper("agents")
            now = datetime.now(UTC)
            of = {"agent_id": "a", "name": "a", "model": "m", "session_id": "s", "turn_id": "t", "messages": []}
            of |= {"started_at": now, "ended_at": now, "output": None, "steps": (), "before": 0, "given": {}}
            shipper.take(EndedTurn(**of, error=None))
            shipper.close()
            print(sorted({"mlflow", "sqlalchemy", "opentelemetry", "prefect", "torch"} & sys.modules.keys()))
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert written() == ["t"]
