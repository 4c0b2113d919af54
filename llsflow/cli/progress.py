"""The run as the terminal shows it: a line a step, and a live bar for the one under way."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from llsflow.cli.words import amount, duration
from llsflow.schema.plan import Plan, Step, StepResult, StepState
from llsflow.steps.checkpoints import CheckpointFacts
from llsflow.steps.context import Progress as StepProgress

LINE_EVERY_SECONDS = 10.0
"""Between lines of progress where there is no terminal to draw a bar in."""


class Terminal:
    """A watcher that draws on a console."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console = console
        self.width = max(len(step.name) for step in plan.steps)
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn(f"{{task.description:<{self.width}}}"),
            BarColumn(bar_width=24),
            _Count(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            _Left(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.last_line = time.monotonic()

    def __enter__(self) -> Terminal:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        """Show that something is under way that is no step."""
        self._replace(text)

    def step_started(self, step: Step) -> None:
        """Show the step's bar."""
        if step.state is StepState.RESUME:
            self._line("↻", step.name, step.reason, "yellow")
        self._replace(step.name)
        self.last_line = time.monotonic()

    def step_skipped(self, step: Step, result: StepResult) -> None:
        """Print that the step is up to date."""
        self._line("·", step.name, "up to date", "dim")

    def checkpoint(self, step: Step, checkpoint: CheckpointFacts) -> None:
        """Not news for the terminal: the bar says how far the training is."""

    def step_finished(self, step: Step, result: StepResult) -> None:
        """Print what the step came to."""
        self._replace(None)
        self._line("✓", step.name, f"{_outcome(result):<50} {duration(result.seconds):>8}", "green")

    def progress(self, step: Step, progress: StepProgress) -> None:
        """Move the bar; without a terminal print a line now and then."""
        metrics = "  ".join(f"{name} {_number(value)}" for name, value in progress.metrics.items())
        if self.task is not None:
            self.bars.update(
                self.task, completed=progress.done, total=progress.total, metrics=metrics, unit=progress.unit
            )
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line > LINE_EVERY_SECONDS:
            self.last_line = now
            self._line(" ", step.name, f"{progress.done}/{progress.total} {progress.unit}  {metrics}", "")

    def _replace(self, description: str | None) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(description, total=None, metrics="", unit="") if description else None

    def _line(self, mark: str, name: str, text: str, style: str) -> None:
        self.console.print(f"{mark} {name:<{self.width}}  {text}", style=style or None, highlight=False, soft_wrap=True)


class _Count(TextColumn):
    """`120/300 steps`, once there is a total."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f}/{task.total:.0f} {task.fields['unit']}" if task.total else "")


class _Left(TextColumn):
    """Time left, by the bar's own speed."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text(f"{duration(left)} left" if left is not None and task.total else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _outcome(result: StepResult) -> str:
    found = OUTCOMES.get(result.kind)
    return found(result.summary) if found else ""


OUTCOMES = {
    "model": lambda summary: f"{amount(summary['parameters'])} parameters",
    "prepare": lambda summary: (
        f"{amount(summary['train']['rows'])} rows, {amount(summary['train']['tokens'])} tokens, "
        f"{summary['train']['loss_tokens'] / summary['train']['tokens']:.0%} under loss"
    ),
    "train": lambda summary: (
        f"{amount(summary['steps'])} steps, loss {summary['train_loss']:.4f}"
        + (f", validation {summary['validation_loss']:.4f}" if summary["validation_loss"] is not None else "")
        + (f", {amount(summary['tokens_per_s'])} tokens/s" if summary["tokens_per_s"] else "")
    ),
    "export": lambda summary: f"{amount(summary['parameters'])} parameters in {summary['dtype']}",
    "evaluate": lambda summary: f"{amount(summary['rows'])} rows of {summary['benchmark']}",
    "gate": lambda summary: (
        f"passed: version {summary['version']} of {summary['champion']} is the champion"
        if summary.get("champion")
        else "passed"
    ),
}
"""What the line of a finished step says, by kind."""
