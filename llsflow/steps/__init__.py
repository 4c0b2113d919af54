"""The kinds of step: what runs each, and which files are its code.

A step is a plain function `run(context) -> summary`; nothing here knows Prefect.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llsflow.steps.context import StepContext

PACKAGE = Path(__file__).parent.parent
WEIGHTS = ("models/adapters.py", "models/load.py", "models/roles.py")
"""What decides the weights that are loaded."""
GENERATION = (
    *WEIGHTS,
    *(
        "models/attention.py",
        "models/cache.py",
        "models/constrain.py",
        "models/decode.py",
        "models/forward.py",
        "models/generation_attention.py",
        "models/local.py",
        "models/segments.py",
        "models/text.py",
    ),
)
"""What decides a model's answers."""


@dataclass(frozen=True)
class StepKind:
    """A kind of step."""

    module: str
    """Module with `run`; imported when a step of this kind runs, as it may be heavy."""
    code: tuple[str, ...]
    """Files and folders of the package that decide the result: a change in them makes the step run again."""
    retries: int = 0
    """Further tries after a failure that may pass (a service that does not answer)."""

    def function(self) -> Callable[[StepContext], dict[str, Any]]:
        """Return the step function."""
        run: Callable[[StepContext], dict[str, Any]] = importlib.import_module(self.module).run
        return run


@cache
def code_version(kind: str) -> str:
    """Return the sha256 (hex) of the step's source files."""
    return code_of(STEPS[kind].code)


@cache
def code_of(entries: tuple[str, ...]) -> str:
    """Return the sha256 (hex) of source files, and of those in folders, named from the package on."""
    found = hashlib.sha256()
    for entry in entries:
        path = PACKAGE / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


STEPS: dict[str, StepKind] = {
    "model": StepKind("llsflow.steps.model", ("models/build.py", "steps/model.py")),
    "prepare": StepKind("llsflow.steps.prepare", ("data", "steps/prepare.py"), retries=2),
    "reference": StepKind(
        "llsflow.steps.reference",
        (
            *("training/reference.py", "training/objectives.py", "training/examples.py", "training/batches.py"),
            *("losses/supervised.py", "models/output.py", "models/segments.py", *WEIGHTS, "steps/reference.py"),
        ),
    ),
    "train": StepKind(
        "llsflow.steps.train",
        ("training", "losses", "models/output.py", "models/segments.py", *WEIGHTS, "steps/train.py"),
    ),
    "export": StepKind("llsflow.steps.export", (*WEIGHTS, "steps/export.py")),
    "evaluate": StepKind(
        "llsflow.steps.evaluate",
        (
            *("evals.py", "sampling.py", "scorers", *GENERATION, "models/endpoint.py", "models/protocol.py"),
            *("models/remote.py", "steps/answers.py", "steps/evaluate.py", "steps/judging.py"),
            *("data/ranked.py", "models/ranking.py", "models/rerankers.py", "steps/ranking.py"),
            *("models/bm25.py", "rerank.py"),
        ),
        retries=2,
    ),
    "compare": StepKind(
        "llsflow.steps.compare",
        ("data/contamination.py", "scorers/intervals.py", "steps/compare.py", "steps/evaluate.py"),
    ),
    "gate": StepKind("llsflow.steps.gate", ("steps/gate.py",)),
    "record": StepKind("llsflow.steps.record", ("report.py", "steps/record.py"), retries=2),
}
