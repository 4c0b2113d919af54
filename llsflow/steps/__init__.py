"""The kinds of step: what runs each, and which sources are its code.

A step is a plain function `run(context) -> summary`; nothing here knows Prefect.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from llsflow.steps.code import closure_of, digest_of

if TYPE_CHECKING:
    from llsflow.steps.context import StepContext

AGENTS = "llsflow.steps.agents"
"""What runs agents: it decides the answers of benchmarks whose candidate is one, and of no other."""

MODELS = ("torch", "transformers", "tokenizers", "peft")


@dataclass(frozen=True)
class StepKind:
    """A kind of step."""

    module: str
    """Module with `run`; imported when a step of this kind runs, as it may be heavy."""
    without: tuple[str, ...] = ()
    """Modules that decide its result only where the plan says so."""
    retries: int = 0
    """Further tries after a failure that may pass (a service that does not answer)."""
    libraries: tuple[str, ...] = ()
    """Distributions that decide its numbers: their versions are kept with the result, and told when others are here."""

    def function(self) -> Callable[[StepContext], dict[str, Any]]:
        """Return the step function."""
        run: Callable[[StepContext], dict[str, Any]] = importlib.import_module(self.module).run
        return run


@cache
def code_version(kind: str) -> str:
    """Return the sha256 (hex) of the sources that decide the step's result: a change in them makes it run again."""
    known = STEPS[kind]
    return code_of(known.module, known.without)


@cache
def code_of(module: str, without: tuple[str, ...] = ()) -> str:
    """Return the sha256 (hex) of a module's sources, of those that it imports, and so on."""
    return digest_of(closure_of(module, without))


@cache
def versions_of(kind: str) -> dict[str, str]:
    """Return the installed versions of the libraries that decide a step's numbers; one that is missing is left out."""
    found = {}
    for name in STEPS[kind].libraries:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


STEPS: dict[str, StepKind] = {
    "model": StepKind("llsflow.steps.model", libraries=("torch", "transformers")),
    "prepare": StepKind("llsflow.steps.prepare", retries=2, libraries=("transformers", "tokenizers", "jinja2")),
    "reference": StepKind("llsflow.steps.reference", libraries=(*MODELS, "lightning")),
    "train": StepKind("llsflow.steps.train", libraries=(*MODELS, "lightning")),
    "export": StepKind("llsflow.steps.export", libraries=MODELS),
    "evaluate": StepKind("llsflow.steps.evaluate", without=(AGENTS,), retries=2, libraries=(*MODELS, "jinja2")),
    "compare": StepKind("llsflow.steps.compare", libraries=("numpy",)),
    "gate": StepKind("llsflow.steps.gate"),
    "record": StepKind("llsflow.steps.record", retries=2),
}
