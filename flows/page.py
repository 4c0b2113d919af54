"""What a person sees on the Prefect page of a run: progress, links, tables. It never fails a run."""

from __future__ import annotations

import contextlib
import contextvars
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.logging.loggers import PrefectLogAdapter

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from llsflow.schema.plan import Step, StepResult
    from llsflow.steps.checkpoints import CheckpointFacts
    from llsflow.steps.context import Progress

_LOG_EVERY = 5
"""A line in the run's log for every so many updates of its progress artifact."""

_TABLE_ROWS = 500


def artifact_key(kind: str, name: str) -> str:
    """Return a key as Prefect allows them: one key for each experiment, a version for each run."""
    return f"{kind}-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def describe(progress: Progress) -> str:
    """Return one line: 120 / 300 steps (40 %), loss 0.3123."""
    share = f" ({100 * progress.done / progress.total:.0f} %)" if progress.total else ""
    numbers = "".join(f", {name} {value:.4g}" for name, value in progress.metrics.items())
    return f"{progress.done:,} / {progress.total:,} {progress.unit}{share}{numbers}"


@dataclass
class _Feed:
    """The progress of one step: what is known, and what the page was told."""

    task_run_id: UUID
    logger: PrefectLogAdapter
    latest: Progress | None = None
    told: Progress | None = None
    updates: int = 0
    artifact_id: UUID | None = None


@dataclass
class Page:
    """A Watcher that shows progress on the Prefect page, and hears from it, in a thread of its own.

    Training only leaves its newest numbers here, which costs microseconds; the thread passes them on at
    most every `interval_seconds`. Trouble with the API costs the page its numbers, never the run.
    """

    interval_seconds: float = 2.0
    listen_seconds: float = 5.0
    """Between two looks whether somebody pressed Cancel on the page."""
    on_cancel: Callable[[], None] = lambda: None
    """Called when somebody did."""
    on_lost: Callable[[], None] = lambda: None
    """Called when the API does not answer; it may bring the server back."""
    _feeds: dict[str, _Feed] = field(default_factory=dict)
    _changed: threading.Event = field(default_factory=threading.Event)
    _closing: threading.Event = field(default_factory=threading.Event)
    _listened: float = field(default_factory=time.monotonic)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show progress for as long as the context lasts; inside a flow run."""
        # The thread needs the settings and the flow run that live in this thread's context.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._tell,), name="prefect-page", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing.set()
            self._changed.set()
            thread.join(timeout=5.0)

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Show the progress of this step; inside its task run."""
        context = TaskRunContext.get()
        logger = get_run_logger()
        if context is None or not isinstance(logger, PrefectLogAdapter):
            yield
            return
        self._feeds[step.name] = _Feed(context.task_run.id, logger)
        yield
        self._changed.set()

    def step_started(self, step: Step) -> None:
        """The task run's own state says so."""

    def step_skipped(self, step: Step, result: StepResult) -> None:
        """The task run's own state says so."""

    def checkpoint(self, step: Step, checkpoint: CheckpointFacts) -> None:
        """Not news for the page: progress says how far the training is."""

    def step_finished(self, step: Step, result: StepResult) -> None:
        """The task run's own state says so."""

    def progress(self, step: Step, progress: Progress) -> None:
        """Leave the newest numbers for the thread."""
        feed = self._feeds.get(step.name)
        if feed is not None:
            feed.latest = progress
            self._changed.set()

    def _tell(self) -> None:
        flow_run = FlowRunContext.get()
        flow_run_id = flow_run.flow_run.id if flow_run and flow_run.flow_run else None
        if flow_run_id is None:
            return
        while not self._closing.is_set():
            # The page is a courtesy: a server that went away, or answers nonsense, must not reach training.
            with contextlib.suppress(Exception):
                self._follow(flow_run_id)
            if not self._closing.is_set():
                self.on_lost()
                self._closing.wait(self.interval_seconds)

    def _follow(self, flow_run_id: UUID) -> None:
        """Tell and listen until the run ends; raises when the API does not answer."""
        with get_client(sync_client=True) as client:
            while not self._closing.is_set():
                self._changed.wait(timeout=self.listen_seconds)
                self._changed.clear()
                self._tell_news(client, flow_run_id)
                self._listen(client, flow_run_id)
                self._closing.wait(self.interval_seconds)
            self._tell_news(client, flow_run_id)

    def _listen(self, client: SyncPrefectClient, flow_run_id: UUID) -> None:
        if time.monotonic() - self._listened < self.listen_seconds:
            return
        self._listened = time.monotonic()
        state = client.read_flow_run(flow_run_id).state
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            self.on_cancel()

    def _tell_news(self, client: SyncPrefectClient, flow_run_id: UUID) -> None:
        for feed in list(self._feeds.values()):
            if feed.latest is None or feed.latest is feed.told:
                continue
            feed.told = progress = feed.latest
            last = progress.done >= progress.total
            if last or feed.updates % _LOG_EVERY == 0:
                feed.logger.info(describe(progress))
            feed.updates += 1
            percent = min(100.0, 100.0 * progress.done / progress.total) if progress.total else 0.0
            if feed.artifact_id is None:
                feed.artifact_id = client.create_artifact(
                    ArtifactCreate(
                        type="progress",
                        data=percent,
                        description=describe(progress),
                        flow_run_id=flow_run_id,
                        task_run_id=feed.task_run_id,
                    )
                ).id
            else:
                client.update_artifact(feed.artifact_id, ArtifactUpdate(data=percent, description=describe(progress)))


def publish_link(kind: str, name: str, text: str, link: str) -> None:
    """Put a link on the page of the flow run."""
    _publish(ArtifactCreate(key=artifact_key(kind, name), type="markdown", data=f"[{text}]({link})"))


def publish_table(kind: str, name: str, rows: object) -> None:
    """Put a table on the page of the flow run, where `rows` is one: a list of records."""
    if not isinstance(rows, Sequence) or not rows or not all(isinstance(row, Mapping) for row in rows):
        return
    cells = [{column: _cell(value) for column, value in row.items()} for row in rows[:_TABLE_ROWS]]
    _publish(ArtifactCreate(key=artifact_key(kind, name), type="table", data=json.dumps(cells)))


def _cell(value: Any) -> Any:
    # The page reads the table as JSON, which has neither NaN nor infinity, nor types of ours.
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _publish(artifact: ArtifactCreate) -> None:
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is None or flow.flow_run is None:
        return
    placed = artifact.model_copy(
        update={"flow_run_id": flow.flow_run.id, "task_run_id": task.task_run.id if task else None}
    )
    try:
        with get_client(sync_client=True) as client:
            client.create_artifact(placed)
    except Exception as error:
        get_run_logger().warning("no artifact %s on this page: %s", artifact.key, error)
