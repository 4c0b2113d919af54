"""What can be chosen by name says what it is, has a test, and every module can be imported by itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llsflow.data.files import READERS
from llsflow.scorers import AGGREGATIONS, SCORERS
from llsflow.shields import SHIELDS
from llsflow.steps import STEPS
from llsflow.tools import PROVIDERS
from llsflow.training.optimizers import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[2]
REGISTRIES: dict[str, Mapping[Any, Any]] = {
    "SCORERS": SCORERS,
    "AGGREGATIONS": AGGREGATIONS,
    "STEPS": {name: kind.function() for name, kind in STEPS.items()},
    "OPTIMIZERS": OPTIMIZERS,
}


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, name) for registry, entries in REGISTRIES.items() for name in entries]
)
def test_every_entry_says_what_it_is(registry: str, name: str) -> None:
    entry = REGISTRIES[registry][name]
    assert inspect.getdoc(entry if callable(entry) else type(entry))


TESTS = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize(
    "name", [*SCORERS, *AGGREGATIONS, *OPTIMIZERS, *SCHEDULES, *READERS, *STEPS, *PROVIDERS, *SHIELDS]
)
def test_every_entry_is_named_in_a_test(name: str) -> None:
    assert f'"{name}"' in TESTS or f'"{name.rpartition("::")[2]}' in TESTS or name in TESTS


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("llsflow", "flows")
    for path in (ROOT / package).rglob("*.py")
)
LIGHT = [name for name in MODULES if name.split(".")[:2] in (["llsflow", part] for part in ("cli", "config", "schema"))]


def test_the_light_half_imports_without_the_heavy_libraries() -> None:
    """As if none of them were installed: an import of one raises."""
    heavy = ("torch", "transformers", "lightning", "mlflow", "prefect", "pandas", "matplotlib")
    program = f"import sys\nfor name in {heavy!r}: sys.modules[name] = None\n"
    program += "".join(
        f"import {name}\n" for name in [*LIGHT, "llsflow.plan", "llsflow.evals", "llsflow.steps.execute"]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_switches_are_on() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    assert settings["pytest"]["ini_options"]["filterwarnings"] == ["error"]
    assert settings["pytest"]["ini_options"]["xfail_strict"]
    assert settings["mypy"]["strict"]
    assert settings["importlinter"]["contracts"][0]["exhaustive"]
