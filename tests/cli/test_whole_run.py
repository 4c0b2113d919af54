"""One small run from YAML to record, through real Prefect and MLflow: what `make test` has of the services."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.conftest import small_quickstart
from tests.patience import PATIENCE_SECONDS


def test_a_run_goes_from_yaml_to_its_record_and_is_not_done_twice(tmp_path: Path) -> None:
    home = tmp_path / "home"
    program = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]
    environment = {**os.environ, "LLSFLOW_HOME": str(home)}

    def llsflow(*words: str) -> str:
        done = subprocess.run(
            [*program, *words], env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    words = ["run", "quickstart", *small_quickstart(tmp_path)]
    try:
        told = llsflow(*words)
        assert "with 95 % intervals" in told
        assert "/runs/flow-run/" in told
        (report,) = (home / "steps").glob("record-*/report.html")
        assert "basic::equality" in report.read_text("utf-8")
        with sqlite3.connect(home / "mlflow" / "mlflow.db") as store:
            runs = dict(store.execute("select name, status from runs").fetchall())
        assert {"quickstart", "prepare", "train", "export", "evaluate-base", "evaluate-tuned"} <= runs.keys()
        assert set(runs.values()) == {"FINISHED"}
        assert "nothing to do" in llsflow(*words)
    finally:
        llsflow("stop")
