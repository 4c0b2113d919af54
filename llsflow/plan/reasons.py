"""What will happen to a step, and why: whether its result is there, and what changed since it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llsflow.schema.plan import Step, StepResult, StepState
from llsflow.steps import results, versions_of


def judge(step: Step, before: list[Step], previous: dict[str, Step]) -> Step:
    """Return the step with what will happen to it, and why."""
    if (done := results.finished(step)) is not None:
        return step.model_copy(update={"state": StepState.SKIP, "reason": "up to date" + _other_libraries(done)})
    if where := results.begun(step):
        return step.model_copy(update={"state": StepState.RESUME, "reason": where})
    running = {other.name for other in before if other.state is not StepState.SKIP}
    return step.model_copy(update={"state": StepState.RUN, "reason": _why(step, running, previous.get(step.name))})


def _other_libraries(done: StepResult) -> str:
    here = versions_of(done.kind)
    others = [
        f"{name} {before} (here {here.get(name, 'none')})"
        for name, before in done.libraries.items()
        if before != here.get(name)
    ]
    return f"; made with {', '.join(others)}" if others else ""


def _why(step: Step, running: set[str], old: Step | None) -> str:
    if old is None:
        return "not run yet"
    changed = list(_differences(old.settings, step.settings))
    if changed:
        more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
        return "changed: " + ", ".join(changed[:2]) + more
    waits = [name for name in step.inputs.values() if name in running]
    if waits:
        return f"depends on {', '.join(waits)}"
    return "its output is not there" if old.key == step.key else "the code of this step changed"


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield f"{path} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
