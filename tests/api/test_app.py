"""The application: light to start, and its pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Served
from tests.patience import PATIENCE_SECONDS

HEAVY = (
    "torch",
    "transformers",
    "lightning",
    "mlflow",
    "prefect",
    "pandas",
    "pyarrow",
    "sympy",
    "omegaconf",
    "datasets",
)

CREATE = """
from llsflow.api.app import create_app
from llsflow.api.deps import Services
from llsflow.schema.server import ServerConfig
from llsflow.store import Store

create_app(Services(ServerConfig(), Store.open(), jobs=None, agents=None))
"""


def test_it_starts_without_what_is_heavy() -> None:
    program = f"{CREATE}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_starts_with_little_more_than_its_libraries() -> None:
    """In calls of Python functions, which neither other processes nor the machine's speed change."""

    def calls(program: str) -> int:
        profiled = f"profile = cProfile.Profile()\nprofile.enable()\n{program}\nprofile.disable()"
        told = "print(pstats.Stats(profile).total_calls)"
        words = [sys.executable, "-c", f"import cProfile, pstats\n{profiled}\n{told}"]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    calls(CREATE)  # makes the store, and the compiled modules
    assert calls(CREATE) <= 1.6 * calls("import fastapi, sqlalchemy")


def test_the_pages_need_no_other_site(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert http.get("/openapi.json").json()["info"]["title"] == "llsflow"


def test_the_servers_address_leads_to_its_documentation(http: httpx.Client) -> None:
    answer = http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


@pytest.mark.slow
def test_the_page_of_the_documentation_shows_every_operation(served: Served, tmp_path: Path) -> None:
    browser = next((name for name in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(name).exists()), None)
    if browser is None:
        pytest.skip("no browser is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000"]
    shown = subprocess.run(
        [browser, *flags, "--dump-dom", f"{served.url}/docs"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    ).stdout
    for operations in served.http.get("/openapi.json").json()["paths"].values():
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in shown
