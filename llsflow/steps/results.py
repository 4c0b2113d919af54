"""Finished and unfinished steps on disk, found by their key."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError

from llsflow import home
from llsflow.schema.plan import Step, StepResult

RESULT = "result.json"
GENERATIONS = "generations.jsonl"
"""Of an evaluation: every answer, as it was made."""


def final_folder(step: Step) -> Path:
    """Return where a finished step's output lies."""
    return home.home() / "steps" / f"{step.kind}-{step.key[:16]}"


def work_folder(step: Step) -> Path:
    """Return where a step works; it stays after a failure, for the next try."""
    return home.home() / "work" / f"{step.kind}-{step.key[:16]}"


def finished(step: Step) -> StepResult | None:
    """Return the result of a step that is done and whose files are as it left them."""
    folder = final_folder(step)
    found = home.read_json(folder / RESULT)
    if found is None:
        return None
    try:
        result = StepResult.model_validate(found, extra="ignore")
    except ValidationError:
        return None
    if result.key != step.key or not _intact(folder, result.files):
        return None
    # the home may have moved, and another plan may know the step by another name
    return result.model_copy(update={"name": step.name, "folder": str(folder)})


def _intact(folder: Path, files: dict[str, int]) -> bool:
    try:
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def begun(step: Step) -> str | None:
    """Return where the step goes on, in words, when an earlier try left work to go on from."""
    folder = work_folder(step)
    if any(folder.glob("checkpoints/step-*/checkpoint.json")):
        return "goes on from its last checkpoint"
    generations = folder / GENERATIONS
    if generations.is_file() and generations.stat().st_size:
        return "goes on at its missing rows"
    return None


def commit(step: Step, result: StepResult) -> StepResult:
    """Write the result beside the step's files and rename the folder into place."""
    work, final = work_folder(step), final_folder(step)
    files = {path.relative_to(work).as_posix(): path.stat().st_size for path in work.rglob("*") if path.is_file()}
    done = result.model_copy(update={"files": files, "folder": str(final)})
    with home.storage_errors(home.home()):
        home.write_json(work / RESULT, done.model_dump(mode="json"))
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
    return done
