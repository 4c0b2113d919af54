"""The quickstart as shipped: what the README promises of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS


@pytest.mark.slow
def test_the_tiny_model_learns_the_task_on_days_it_never_saw(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]
    environment = {**os.environ, "LLSFLOW_HOME": str(tmp_path / "home")}
    try:
        done = subprocess.run(
            [*program, "run", "quickstart"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (compared,) = (tmp_path / "home" / "steps").glob("compare-*/result.json")
        (row,) = json.loads(compared.read_text())["summary"]["table"]
        assert row["rows"] == 200
        assert row["base"] <= 0.05
        assert row["tuned"] >= 0.95
        assert row["interval"][0] > 0.9
    finally:
        subprocess.run([*program, "stop"], env=environment, capture_output=True, check=False)
