"""No test of the first tier starts a service: what the guard takes for one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import GUARD
from tests.tiers import SERVICES, WHOLE_RUN, is_of_services, service_of

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("words", "service"),
    [
        (["/bin/python", "-m", "prefect", "server", "start"], "python -m prefect"),
        (
            ["/bin/python", "-IS", "launcher.py", "1", "/bin/python", "-m", "flows.worker"],
            "python -m flows.worker",
        ),
        (["/bin/python", "-m", "llsflow.models.engine", "--port", "1"], "python -m llsflow.models.engine"),
        (["/bin/python", "-m", "pip", "wheel", "."], "python -m pip"),
        (["/usr/lib/postgresql/15/bin/initdb", "--auth=trust"], "initdb"),
        (["/usr/bin/bwrap", "--unshare-all"], "bwrap"),
        (["/bin/python", "-c", "from llsflow.cli import main; main()", "run", "quickstart"], "llsflow run"),
        (["/bin/python", "-c", "from llsflow.cli import main; main()", "chat", "agent=calculator"], None),
        (["/bin/python", "-m", "llsflow.scorers.symbolic", "1"], None),
        (["openssl", "version"], None),
    ],
)
def test_programs_that_are_services(words: list[str], service: str | None) -> None:
    assert service_of("subprocess.Popen", (words[0], words, None, None)) == service


def test_it_hears_of_processes_and_databases_until_it_ends(tmp_path: Path) -> None:
    GUARD.begin()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", "", "llsflow.cli", "serve"], check=True)
    subprocess.run([sys.executable, "-c", ""], check=True)
    for name in ("store.db", "mlflow.db"):
        sqlite3.connect(tmp_path / name).close()
    assert GUARD.end() == ["llsflow serve", "the database mlflow.db"]
    sqlite3.connect(tmp_path / "prefect.db").close()
    assert GUARD.end() == []


def test_every_listed_place_is_there(request: pytest.FixtureRequest) -> None:
    assert [name for name in (*SERVICES, WHOLE_RUN) if not (HERE / name).exists()] == []
    assert not is_of_services(request.node)


def test_what_makes_sandboxes_is_of_the_services_also_where_bubblewrap_is_not_installed() -> None:
    makers = [path for path in HERE.rglob("test_*.py") if "    skip_without_sandbox()\n" in path.read_text()]
    assert makers
    assert [name for path in makers if (name := path.relative_to(HERE).as_posix()) not in SERVICES] == []
