"""A store of MLflow's that is made: whole, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking


def test_a_process_that_is_killed_while_it_makes_the_store_leaves_it_to_the_next(
    llsflow_home: Path, tmp_path: Path
) -> None:
    program = tmp_path / "first.py"
    program.write_text("from llsflow.tracking.traces import write_traces\nwrite_traces([], None, 'agents')\n")
    program.write_text(
        "from llsflow.schema.experiment import TrackingConfig\n"
        "from llsflow.tracking import Tracking\n"
        "Tracking(TrackingConfig(experiment='agents')).connect()\n"
    )
    aside = llsflow_home / "mlflow" / ".mlflow.db.new"
    with subprocess.Popen([sys.executable, program]) as process:
        while not (aside.exists() and aside.stat().st_size):
            assert process.poll() is None
        process.kill()
    assert not (llsflow_home / "mlflow" / "mlflow.db").stat().st_size
    Tracking(TrackingConfig(experiment="agents")).connect()
    assert (llsflow_home / "mlflow" / "mlflow.db").stat().st_size
    assert not list((llsflow_home / "mlflow").glob(".mlflow.db.new*"))
