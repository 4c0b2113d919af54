"""Where the command line meets flows/, which lies beside the package in a checkout and inside it in a wheel."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from llsflow.plan import Runner

FLOWS = "llsflow.flows" if (Path(__file__).parents[1] / "flows").is_dir() else "flows"


class Stack(Protocol):
    """The services that runs leave in the background."""

    def stop(self) -> bool:
        """End them, and return whether any ran."""


def new_runner() -> Runner:
    """Return what runs plans."""
    runner: Runner = _flows("runner").PrefectRunner()
    return runner


def new_stack() -> Stack:
    """Return the local services."""
    stack: Stack = _flows("stack").LocalPrefect()
    return stack


def _flows(module: str) -> Any:
    return importlib.import_module(f"{FLOWS}.{module}")
