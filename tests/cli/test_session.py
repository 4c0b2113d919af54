"""A working session as a user has it: real processes, a real Prefect server, a real MLflow store."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import small_quickstart

LLSFLOW = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]
DEADLINE_SECONDS = 240.0


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    person = User(tmp_path_factory.mktemp("user"))
    yield person
    person.type("stop")


class User:
    """Somebody at a terminal, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "outputs"
        self.small = small_quickstart(folder)

    @property
    def experiment(self) -> list[str]:
        return ["quickstart", *self.small]

    def environment(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if name not in ("LLSFLOW_HOME", "PREFECT_API_URL")}
        return {**keep, "COLUMNS": "100"}

    def type(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*LLSFLOW, *words],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        told = done.stdout + done.stderr
        assert done.returncode == code, told
        assert "Traceback" not in told
        return told

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*LLSFLOW, *words],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_checkpoint(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not list((self.home / "work").glob("train-*/checkpoints/step-*/checkpoint.json")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)


def steps_run(told: str) -> set[str]:
    return set(re.findall(r"^✓ ([\w-]+)", told, re.MULTILINE))


def test_run_then_again_then_changed(user: User) -> None:
    told = user.type("run", *user.experiment)
    assert len(steps_run(told)) == 8
    assert "basic::equality" in told
    assert re.search(r"MLflow +http://127\.0\.0\.1:\d+/#/experiments/\d+/runs/\w+", told)
    assert re.search(r"Prefect +http://127\.0\.0\.1:\d+/runs/flow-run/", told)
    assert (user.folder / re.search(r"Model +(\S+)", told)[1] / "model.safetensors").is_file()  # type: ignore[index]

    told = user.type("run", *user.experiment)
    assert "nothing to do, all 8 steps are up to date" in told
    assert "basic::equality" in told
    assert not steps_run(told)

    told = user.type("run", *user.experiment, "recipe.training_config.optimizer_config.lr=1e-3")
    assert steps_run(told) == {"train", "export", "evaluate-tuned", "compare", "record"}


LONG = ["recipe.training_config.n_epochs=3", "recipe.training_config.max_steps_per_epoch=2000", "dataset.hold_out=0.1"]
"""Long enough to be met in the middle: 36 rows, 4 a batch, 3 epochs are 27 steps."""


def test_kill_in_the_middle_then_the_same_command(user: User) -> None:
    words = ["run", *user.experiment, *LONG, "seed=11", "recipe.checkpoint_every_n_steps=1"]
    process = user.begin(*words)
    user.wait_for_checkpoint(process)
    process.kill()
    process.communicate()
    told = user.type(*words)
    assert "train" in steps_run(told)
    assert re.search(r"^↻ train +goes on from its last checkpoint", told, re.MULTILINE)
    found = [json.loads(path.read_text())["summary"] for path in (user.home / "steps").glob("train-*/result.json")]
    assert [0 < summary["resumed_from"] < 27 for summary in found if summary["steps"] == 27] == [True]
    with sqlite3.connect(user.home / "mlflow" / "mlflow.db") as store:
        running = store.execute("select name from runs where status = 'RUNNING'").fetchall()
    assert running == []
    with sqlite3.connect(user.home / "prefect" / "prefect.db") as server:
        states = [state for (state,) in server.execute("select state_type from flow_run").fetchall()]
    assert states.count("CRASHED") == 1
    assert "RUNNING" not in states


def test_interrupt_stops_at_a_step_and_says_how_to_go_on(user: User) -> None:
    words = ["run", *user.experiment, *LONG, "seed=12", "recipe.checkpoint_every_n_steps=1"]
    process = user.begin(*words)
    user.wait_for_checkpoint(process)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode in (0, 130), told
    if process.returncode == 0:
        pytest.skip("the run was over before the interrupt came")
    assert "Traceback" not in told
    assert "to go on: llsflow run quickstart" in told
    with sqlite3.connect(user.home / "mlflow" / "mlflow.db") as store:
        ended = store.execute("select name from runs where status = 'KILLED'").fetchall()
    assert ("quickstart",) in ended
    again = user.type(*words)
    assert "basic::equality" in again


def test_a_failing_run_is_one_sentence(user: User) -> None:
    told = user.type("run", *user.experiment, "recipe.max_length=8", code=1)
    assert re.search(r"llsflow: cannot go on:\n.*days.csv:2: \d+ tokens: allowed are 8", told)


def test_mlflow_that_does_not_answer(user: User) -> None:
    told = user.type("run", *user.experiment, "seed=13", "tracking.uri=http://127.0.0.1:9", code=1)
    assert "127.0.0.1:9" in told
    assert len(told.strip().splitlines()) <= 4


def test_prefect_that_does_not_answer(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        user, "environment", lambda: {**User.environment(user), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    )
    told = user.type("run", *user.experiment, "seed=14", code=1)
    assert "PREFECT_API_URL" in told
    assert len(told.strip().splitlines()) <= 4


@pytest.mark.slow
def test_two_runs_at_once_on_a_fresh_home(tmp_path: Path) -> None:
    person = User(tmp_path)
    try:
        both = [person.begin("run", *person.experiment) for _ in range(2)]
        told = [process.communicate(timeout=2 * DEADLINE_SECONDS)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert sum("✓ train" in text for text in told) == 1
        assert all("basic::equality" in text for text in told)
    finally:
        person.type("stop")
