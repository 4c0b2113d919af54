"""The process of a job: it takes the job, tells how it goes, and writes down how it ended, whichever way."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import load_experiment
from llsflow.errors import DataError, Mistake, NotFoundError, Stopped, UnavailableError
from llsflow.jobs import state
from llsflow.jobs.compiling import compile_job
from llsflow.jobs.work import JobWork, open_job
from llsflow.schema.jobs import JobStatus
from llsflow.schema.plan import StepResult
from llsflow.steps.context import Progress
from llsflow.store import Store, StoredJob
from tests.patience import PATIENCE_SECONDS

FLOW = "j1:1"


@pytest.fixture
def posted(job: Callable[..., StoredJob], small: list[str]) -> StoredJob:
    """The small quickstart as a job."""
    made = compile_job(load_experiment("quickstart", small).experiment)
    return job("j1", config=made.config, plan_key=made.plan_key)


def stored(store: Store) -> StoredJob:
    found = store.jobs.get("j1")
    assert found is not None
    return found


def test_a_job_is_taken_and_completed(store: Store, posted: StoredJob) -> None:
    with open_job("j1", FLOW) as work:
        assert work.plan.key == posted.plan_key
        under_way = stored(store)
        assert under_way.status is JobStatus.IN_PROGRESS
        assert under_way.started_at is not None
        assert (under_way.resources or {}).keys() >= {"host", "pid"}
    found = stored(store)
    assert found.status is JobStatus.COMPLETED
    assert found.completed_at is not None


@pytest.mark.parametrize(
    ("raised", "expected", "error"),
    [
        (DataError([Mistake("rows.csv:3", "is empty")]), JobStatus.FAILED, "rows.csv:3: is empty"),
        (RuntimeError("secret /path"), JobStatus.FAILED, "llsflow itself failed"),
        (Stopped("stopped after step 3"), JobStatus.SCHEDULED, None),
        (KeyboardInterrupt(), JobStatus.SCHEDULED, None),
    ],
)
def test_how_it_ended_is_written_down(
    store: Store, posted: StoredJob, raised: BaseException, expected: JobStatus, error: str | None
) -> None:
    with pytest.raises(type(raised)), open_job("j1", FLOW):
        raise raised
    found = stored(store)
    assert found.status is expected
    assert (found.error or "").startswith(error or "")
    assert "secret" not in (found.error or "")
    if expected is JobStatus.SCHEDULED:
        assert found.flow_run_id is None


def test_a_job_cancelled_in_our_store_or_on_prefects_page_is_cancelled(store: Store, posted: StoredJob) -> None:
    with contextlib.suppress(Stopped), open_job("j1", FLOW) as work:
        work.cancelled = lambda: True
        raise Stopped("stopped")
    assert stored(store).status is JobStatus.CANCELLED


def test_a_cancel_is_heard_while_the_job_runs(store: Store, posted: StoredJob) -> None:
    with contextlib.suppress(Stopped), open_job("j1", FLOW) as work:
        assert not work.stopping()
        store.jobs.update("j1", cancel_requested=True)
        assert work.watcher.stop.wait(timeout=PATIENCE_SECONDS)
        assert work.stopping()
        raise Stopped("stopped")
    assert stored(store).status is JobStatus.CANCELLED


def test_a_job_is_not_taken_that_is_over_or_somebody_elses(store: Store, posted: StoredJob) -> None:
    with pytest.raises(NotFoundError, match="no job 'j9'"), open_job("j9", FLOW):
        pass
    with pytest.raises(Stopped, match="a later flow run"), open_job("j1", "j1:0"):
        pass
    store.jobs.update("j1", cancel_requested=True)
    with pytest.raises(Stopped, match="cancelled before it began"), open_job("j1", FLOW):
        pass
    assert stored(store).status is JobStatus.CANCELLED
    with pytest.raises(Stopped, match="has ended already"), open_job("j1", FLOW):
        pass


def test_one_process_at_a_time_does_a_job(store: Store, posted: StoredJob) -> None:
    ended = threading.Event()

    def second() -> None:
        with pytest.raises(Stopped, match="waiting for an earlier process"), open_job("j1", FLOW, lambda: True):
            pass
        ended.set()

    with open_job("j1", FLOW):
        thread = threading.Thread(target=second)
        thread.start()
        assert ended.wait(timeout=PATIENCE_SECONDS)
        thread.join()


def until(store: Store, condition: Callable[[StoredJob], Any]) -> StoredJob:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition(found := stored(store)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_progress_metrics_and_results_are_in_the_store_while_it_runs(
    store: Store, posted: StoredJob, tmp_path: Path
) -> None:
    with open_job("j1", FLOW) as work:
        train = work.plan.step("train")
        work.watcher.step_started(train)
        work.watcher.progress(train, Progress(10, 300, "steps", {"loss": 2.0, "tokens/s": 50.0}))
        work.watcher.progress(train, Progress(20, 300, "steps", {"loss": 1.5, "tokens/s": 100.0}))
        found = until(store, lambda job: job.progress and job.progress.get("done") == 20)
        assert found.progress is not None
        assert found.progress["step"] == "train"
        assert found.progress["tokens_per_second"] == 100.0
        assert found.progress["eta_seconds"] >= 0
        assert found.metrics == {"train_loss": 1.5, "tokens_per_s": 100.0}
        _finish_evaluation(work, tmp_path)
    assert json.loads(store.jobs.result("j1") or b"") == {"generations": [], "scores": {}}
    assert stored(store).metrics["iso_dates/accuracy"] == 0.5


def _finish_evaluation(work: JobWork, folder: Path) -> None:
    (folder / "response.json").write_text('{"generations": [], "scores": {}}')
    step = work.plan.step("evaluate-tuned")
    summary = {"benchmark": "iso_dates", "scores": {"basic::equality": {"accuracy": {"accuracy": 0.5}}}}
    result = StepResult(
        name=step.name, kind=step.kind, key=step.key, folder=str(folder), summary=summary, run_id="r", seconds=1.0
    )
    work.watcher.step_finished(step, result)


def test_a_store_that_is_away_costs_the_job_its_progress_only(
    store: Store, posted: StoredJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_job("j1", FLOW) as work:
        tried = threading.Event()

        def away(*_: Any, **__: Any) -> bool:
            tried.set()
            raise OSError("gone")

        jobs = work.watcher.store.jobs
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "update", away)
            work.watcher.step_started(work.plan.step("train"))
            assert tried.wait(timeout=PATIENCE_SECONDS)
    assert stored(store).status is JobStatus.COMPLETED
    assert stored(store).completed_at is not None
    assert stored(store).created_at <= datetime.now(UTC)


def test_what_a_job_made_reaches_a_store_that_was_away(
    store: Store, posted: StoredJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_job("j1", FLOW) as work:
        jobs = work.watcher.store.jobs
        take, refused = jobs.set_result, threading.Event()

        def away(job_id: str, result: bytes) -> None:
            if not refused.is_set():
                refused.set()
                raise UnavailableError("the store does not answer")
            take(job_id, result)

        monkeypatch.setattr(jobs, "set_result", away)
        _finish_evaluation(work, tmp_path)
        assert refused.is_set()
    assert store.jobs.result("j1") is not None
    assert stored(store).status is JobStatus.COMPLETED


def test_a_job_is_not_done_before_the_store_has_what_it_made(
    store: Store, posted: StoredJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise UnavailableError("the store does not answer")

    def attempt() -> None:
        with open_job("j1", FLOW) as work:
            monkeypatch.setattr(work.watcher.store.jobs, "set_result", away)
            _finish_evaluation(work, tmp_path)

    monkeypatch.setattr(state, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(UnavailableError):
        attempt()
    # another attempt finds every step done, and tells the store
    assert stored(store).status is JobStatus.IN_PROGRESS
