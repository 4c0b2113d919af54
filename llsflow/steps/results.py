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


def generations_folder(step: Step) -> Path:
    """Return where an evaluation's answers are kept as they come: for every evaluation that asks the same."""
    return home.home() / "generations" / str(step.settings["generations"])[:16]


def finished(step: Step, *, partial: bool = False) -> StepResult | None:
    """Return the result of a step that is done and whose files are as it left them; `partial`: one left open, too."""
    folder = final_folder(step)
    found = home.read_json(folder / RESULT)
    if found is None:
        return None
    try:
        result = StepResult.model_validate(found, extra="ignore")
    except ValidationError:
        return None
    if result.key != step.key or (result.open and not partial) or not _intact(folder, result.files):
        return None
    # the home may have moved, and another plan may know the step by another name
    return result.model_copy(update={"name": step.name, "folder": str(folder)})


def _intact(folder: Path, files: dict[str, str]) -> bool:
    try:
        return all(home.cached_file_digest(folder / name) == known for name, known in files.items())
    except OSError:
        return False


def begun(step: Step) -> str | None:
    """Return where the step goes on, in words, when an earlier try left work to go on from."""
    folder = work_folder(step)
    if any(folder.glob("checkpoints/step-*/checkpoint.json")):
        return "goes on from its last checkpoint"
    if "generations" not in step.settings:
        return None
    if (left := finished(step, partial=True)) is not None and left.summary.get("unanswered"):
        return f"asks the {left.summary['unanswered']:,} rows again that were not answered"
    generations = generations_folder(step) / GENERATIONS
    if generations.is_file() and generations.stat().st_size:
        return "takes the answers that are there"
    return None


def commit(step: Step, result: StepResult) -> StepResult:
    """Write the result beside the step's files and rename the folder into place."""
    work, final = work_folder(step), final_folder(step)
    names = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
    files = {name: home.file_digest(work / name) for name in names}
    done = result.model_copy(update={"files": files, "folder": str(final)})
    with home.storage_errors(home.home()):
        home.write_json(work / RESULT, done.model_dump(mode="json"))
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
    for name in names:
        home.cached_file_digest(final / name)  # large files are not read again by the next plan
    return done
