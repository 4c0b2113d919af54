"""What can be chosen by name says what it is; the light half of the package imports no heavy library."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llsflow.scorers import AGGREGATIONS, SCORERS
from llsflow.steps import STEPS
from llsflow.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[2]
REGISTRIES: dict[str, Mapping[Any, Any]] = {
    "SCORERS": SCORERS,
    "AGGREGATIONS": AGGREGATIONS,
    "STEPS": {name: kind.function() for name, kind in STEPS.items()},
    "OPTIMIZERS": OPTIMIZERS,
}


def test_every_entry_says_what_it_is() -> None:
    silent = [
        (registry, name)
        for registry, entries in REGISTRIES.items()
        for name, entry in entries.items()
        if not inspect.getdoc(entry if callable(entry) else type(entry))
    ]
    assert silent == []


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
