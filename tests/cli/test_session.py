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

import psutil
import pytest

from tests.conftest import small_quickstart
from tests.patience import PATIENCE_SECONDS

LLSFLOW = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]


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
            timeout=PATIENCE_SECONDS,
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
            process_group=0,
        )

    def wait_for_checkpoint(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
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


def helpers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that a run has for its training: not the servers, which are there for the next run."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any(name in " ".join(child.cmdline()) for name in ("multiprocessing", "llsflow.training.other_device"))
    ]


def test_kill_in_the_middle_then_the_same_command(user: User) -> None:
    words = ["run", *user.experiment, *LONG, "seed=11", "recipe.checkpoint_every_n_steps=1", "trainer.num_workers=1"]
    process = user.begin(*words)
    user.wait_for_checkpoint(process)
    others = helpers(process)
    assert others
    process.kill()
    process.communicate()
    assert psutil.wait_procs(others, timeout=PATIENCE_SECONDS)[1] == []
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


@pytest.mark.parametrize(
    "more",
    [
        "trainer.devices=1",
        pytest.param("trainer.devices=2", marks=pytest.mark.slow),
        pytest.param("trainer.num_workers=1", marks=pytest.mark.slow),
    ],
)
def test_interrupt_stops_at_a_step_leaves_no_process_and_says_how_to_go_on(user: User, more: str) -> None:
    words = ["run", *user.experiment, *LONG, f"seed={len(more)}", "recipe.checkpoint_every_n_steps=1", more]
    process = user.begin(*words)
    user.wait_for_checkpoint(process)
    others = helpers(process)
    assert bool(others) is (more != "trainer.devices=1")
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C is told to every process at the terminal
    told, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "to go on: llsflow run quickstart" in told
    assert psutil.wait_procs(others, timeout=PATIENCE_SECONDS)[1] == []
    with sqlite3.connect(user.home / "mlflow" / "mlflow.db") as store:
        ended = store.execute("select status from runs where name = 'quickstart' order by start_time").fetchall()
    assert ended[-1] == ("KILLED",)
    again = user.type(*words)
    assert "goes on from its last checkpoint" in again
    assert "basic::equality" in again
