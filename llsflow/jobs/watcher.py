"""Tells the store how a job is going, and hears from it whether the job is to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llsflow.jobs.state import AWAY, insist
from llsflow.schema.plan import Plan, Step, StepResult
from llsflow.steps.checkpoints import CheckpointFacts, list_checkpoints
from llsflow.steps.context import Progress
from llsflow.steps.evaluate import flat_metrics
from llsflow.steps.results import final_folder
from llsflow.store import Store, StoredCheckpoint

logger = logging.getLogger("llsflow.jobs")

EVERY_SECONDS = 1.0
"""Between two words to the store; a step only leaves its newest numbers, which costs microseconds."""

NAMES = {"loss": "train_loss", "tokens/s": "tokens_per_s"}
"""Of a metric while its step goes on -> in the step's summary."""


class JobWatcher:
    """A Watcher that keeps the job's record in the store up to date, in a thread of its own."""

    def __init__(self, store: Store, job_id: str, plan: Plan) -> None:
        self.store, self.job_id, self.plan = store, job_id, plan
        self.stop = threading.Event()
        """Set when somebody cancelled the job."""
        self._metrics: dict[str, float] = {}
        self._latest: tuple[Step, Progress | None] | None = None
        self._began = time.monotonic()
        self._first = 0
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._owed: deque[Callable[[], object]] = deque()
        self._paying = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Watch for as long as the context lasts; what came last is written before it ends.

        Raises:
            UnavailableError, StorageError: the store stays away, and does not know all that was made.
        """
        thread = threading.Thread(target=self._follow, name="job-watcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing.set()
            thread.join(timeout=10.0)
            self._write()
            if self.owes:
                insist(self._pay)

    @property
    def owes(self) -> bool:
        """Whether the store has not taken yet what must not be lost: checkpoints, answers, links."""
        return bool(self._owed)

    def keep(self, write: Callable[[], object]) -> None:
        """Write what must not be lost: now, or as soon as the store is back."""
        self._owed.append(write)
        self._safely(self._pay)

    def _pay(self) -> None:
        """Write what is owed, in its order."""
        with self._paying:
            while self._owed:
                try:
                    self._owed[0]()
                except AWAY:
                    raise
                except Exception as error:
                    logger.warning("job %s: the store will not have it: %s", self.job_id, error)
                self._owed.popleft()

    def step_started(self, step: Step) -> None:
        """The step begins (or goes on)."""
        with self._lock:
            self._latest, self._began, self._first = (step, None), time.monotonic(), -1
        self._changed.set()

    def step_skipped(self, step: Step, result: StepResult) -> None:
        """What an earlier run left counts as this job's too."""
        self.step_finished(step, result)

    def progress(self, step: Step, progress: Progress) -> None:
        """Leave the newest numbers for the thread."""
        with self._lock:
            if self._first < 0:
                self._first = progress.done
                self._began = time.monotonic()
            self._latest = (step, progress)
            self._metrics |= {NAMES.get(name, name): float(value) for name, value in progress.metrics.items()}
        self._changed.set()

    def checkpoint(self, step: Step, checkpoint: CheckpointFacts) -> None:
        """A checkpoint is there: it is a model from now on."""
        self._add(step, checkpoint)

    def step_finished(self, step: Step, result: StepResult) -> None:
        """Take over what the step has found."""
        if step.kind == "train":
            for checkpoint in list_checkpoints(Path(result.folder)):
                self._add(step, checkpoint)
            summary = result.summary
            with self._lock:
                self._metrics |= {
                    name: float(summary[name])
                    for name in ("train_loss", "validation_loss", "tokens_per_s")
                    if summary.get(name) is not None
                }
                measured = summary.get("validation", {})
                self._metrics |= {f"validation_{name}": float(points["last"]) for name, points in measured.items()}
        elif step.kind == "export":
            self._add_export(step)
        elif step.kind == "evaluate":
            with self._lock:
                self._metrics |= flat_metrics(str(result.summary["benchmark"]), result.summary["scores"])
            answers = (Path(result.folder) / "response.json").read_bytes()
            self.keep(lambda: self.store.jobs.set_result(self.job_id, answers))
        with self._lock:
            if self._latest is None or self._latest[0].name != step.name:
                self._latest = (step, None)
        self._changed.set()

    def _add(self, step: Step, checkpoint: CheckpointFacts) -> None:
        self.keep(
            lambda: self.store.jobs.add_checkpoint(
                StoredCheckpoint(
                    identifier=f"{self.job_id}:step-{checkpoint.step}",
                    job_id=self.job_id,
                    step=checkpoint.step,
                    epoch=checkpoint.epoch,
                    path=f"{final_folder(step).name}/{checkpoint.path}",
                    created_at=checkpoint.created_at,
                    metrics=checkpoint.metrics,
                )
            )
        )

    def _add_export(self, step: Step) -> None:
        """Add the exported model under the job's own name, with what is known of the checkpoint it comes from."""
        made_at = datetime.now(UTC)

        def add() -> None:
            last = max(self.store.jobs.checkpoints(self.job_id), key=lambda known: known.step, default=None)
            self.store.jobs.add_checkpoint(
                StoredCheckpoint(
                    identifier=self.job_id,
                    job_id=self.job_id,
                    step=last.step if last else 0,
                    epoch=last.epoch if last else 0,
                    path=f"{final_folder(step).name}/model",
                    created_at=made_at,
                    metrics=last.metrics if last else None,
                )
            )

        self.keep(add)

    def _follow(self) -> None:
        while not self._closing.wait(EVERY_SECONDS):
            self._safely(self._pay)
            self._safely(self._listen)
            if self._changed.is_set():
                self._changed.clear()
                self._write()

    def _listen(self) -> None:
        job = self.store.jobs.get(self.job_id)
        if job is None or job.cancel_requested:
            self.stop.set()

    def _write(self) -> None:
        with self._lock:
            metrics, latest = dict(self._metrics), self._latest
        if latest is not None:
            progress = self._progress(*latest)
            self._safely(lambda: self.store.jobs.update(self.job_id, progress=progress, metrics=metrics))

    def _progress(self, step: Step, progress: Progress | None) -> dict[str, Any]:
        index = next(number for number, other in enumerate(self.plan.steps, 1) if other.name == step.name)
        told: dict[str, Any] = {"step": step.name, "step_index": index, "steps": len(self.plan.steps)}
        if progress is None:
            return told
        told |= {"done": progress.done, "total": progress.total, "unit": progress.unit}
        speed = progress.metrics.get("tokens/s")
        if speed is not None:
            told["tokens_per_second"] = round(float(speed), 1)
        done = progress.done - self._first
        if done > 0 and progress.total:
            pace = (time.monotonic() - self._began) / done
            told["eta_seconds"] = round(pace * (progress.total - progress.done), 1)
        return told

    def _safely(self, write: Callable[[], object]) -> None:
        """Write to the store; a store that is away costs the job its progress, never its work."""
        try:
            write()
        except Exception as error:
            logger.warning("job %s: the store did not take its progress: %s", self.job_id, error)
