"""The wheel does away from the checkout what the checkout does: conf/ and flows/ lie inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the built wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(folder), str(ROOT)], check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *words: str) -> str:
    program = (
        "import sys, llsflow; from pathlib import Path\n"
        f"assert Path(llsflow.__file__).is_relative_to({str(installed)!r}), llsflow.__file__\n"
        f"sys.path = [entry for entry in sys.path if Path(entry or '.').resolve() != Path({str(ROOT)!r})]\n"
        "from llsflow.cli import main; sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "LLSFLOW_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_only_llsflow_lands_in_site_packages(installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {"llsflow", f"llsflow-{_version()}.dist-info"}
    assert (installed / "llsflow" / "flows" / "runner.py").is_file()
    assert (installed / "llsflow" / "conf" / "dataset" / "iso_dates" / "train.csv").is_file()


def _version() -> str:
    from importlib.metadata import version

    return version("llsflow")


def test_configuration_and_plan_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert "quickstart" in run(installed, tmp_path, "ls", "experiment")
    assert "8 steps to run" in run(installed, tmp_path, "plan", "quickstart")
    assert "nothing runs" in run(installed, tmp_path, "stop")


@pytest.mark.slow
def test_a_run_from_the_wheel(installed: Path, tmp_path: Path, small: list[str]) -> None:
    try:
        assert "basic::equality" in run(installed, tmp_path, "run", "quickstart", *small)
    finally:
        run(installed, tmp_path, "stop")
