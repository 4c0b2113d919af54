"""A job's record follows what Prefect and this machine know, and nothing stays under way that nobody does."""

from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from llsflow import home
from llsflow.jobs.reconcile import CRASHES_BORNE, Reconciler
from llsflow.jobs.state import lock_name
from llsflow.plan import FlowState
from llsflow.schema.jobs import JobStatus
from llsflow.schema.server import JobsConfig
from llsflow.store import Store, StoredJob
from tests.jobs.conftest import ScriptedPrefect

Make = Callable[..., StoredJob]
HERE = {"host": platform.node(), "pid": 1}
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def reconciler(store: Store, prefect: ScriptedPrefect) -> Reconciler:
    """One that started before there were jobs."""
    return Reconciler(store, prefect, JobsConfig())


def status(store: Store, job_id: str = "j1") -> JobStatus:
    found = store.jobs.get(job_id)
    assert found is not None
    return found.status


def test_a_job_that_was_never_submitted_is(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job(flow_run_id=None)
    reconciler.once()
    # it may be on its way at this very moment: the same attempt is the same flow run
    assert prefect.submitted == [("j1", 1)]
    found = store.jobs.get("j1")
    assert found is not None
    assert (found.flow_run_id, found.attempt, found.status) == ("j1:1", 1, JobStatus.SCHEDULED)


def test_a_job_that_its_process_gave_back_goes_on_as_another_attempt(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job(flow_run_id=None, started_at=STARTED)
    reconciler.once()
    assert prefect.submitted == [("j1", 2)]


def test_a_job_that_waits_or_runs_is_left_alone(prefect: ScriptedPrefect, reconciler: Reconciler, job: Make) -> None:
    job("waits")
    job("runs", status=JobStatus.IN_PROGRESS, resources={"host": "elsewhere"})
    prefect.states |= {"waits:1": FlowState.WAITING, "runs:1": FlowState.RUNNING}
    reconciler.once()
    assert prefect.submitted == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (FlowState.FAILED, JobStatus.SCHEDULED),
        (FlowState.COMPLETED, JobStatus.SCHEDULED),
        (FlowState.CANCELLED, JobStatus.CANCELLED),
        (FlowState.CRASHED, JobStatus.SCHEDULED),
        (FlowState.UNKNOWN, JobStatus.SCHEDULED),
    ],
)
def test_what_ended_in_prefect_without_a_word_of_ours(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make, state: FlowState, expected: JobStatus
) -> None:
    job(status=JobStatus.IN_PROGRESS, started_at=STARTED, resources={"host": "elsewhere"})
    prefect.states["j1:1"] = state
    reconciler.once()
    assert status(store) is expected
    assert bool(prefect.submitted) == (expected is JobStatus.SCHEDULED)


def test_a_job_whose_process_is_gone_goes_on_although_prefect_thinks_it_runs(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job(status=JobStatus.IN_PROGRESS, started_at=STARTED, resources=HERE)
    prefect.states["j1:1"] = FlowState.RUNNING
    with home.locked(lock_name("j1")):
        reconciler.once()
        assert prefect.submitted == []
    reconciler.once()
    assert prefect.submitted == [("j1", 2)]
    assert prefect.cancelled == ["j1:1"]
    assert status(store) is JobStatus.SCHEDULED


def test_a_server_that_starts_takes_nothing_for_granted(store: Store, prefect: ScriptedPrefect, job: Make) -> None:
    job()
    prefect.states["j1:1"] = FlowState.WAITING
    fresh = Reconciler(store, prefect, JobsConfig())
    fresh.once()
    assert prefect.submitted == [("j1", 2)]
    fresh.once()
    assert prefect.submitted == [("j1", 2)]


def test_a_worker_that_came_back_may_have_lost_what_waited(
    prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job()
    reconciler.doubt()
    reconciler.once()
    assert prefect.submitted == [("j1", 2)]


def test_a_cancelled_job_whose_process_is_gone_is_not_started_again(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job(status=JobStatus.IN_PROGRESS, started_at=STARTED, resources=HERE, cancel_requested=True)
    prefect.states["j1:1"] = FlowState.CRASHED
    reconciler.once()
    assert status(store) is JobStatus.CANCELLED
    assert prefect.submitted == []


def test_told_to_fail_a_crashed_job_says_why(store: Store, prefect: ScriptedPrefect, job: Make) -> None:
    job(status=JobStatus.IN_PROGRESS, started_at=STARTED, resources=HERE)
    settled: list[str] = []
    Reconciler(store, prefect, JobsConfig(after_crash="fail"), settled.append).once()
    found = store.jobs.get("j1")
    assert found is not None
    assert found.status is JobStatus.FAILED
    assert settled == ["j1"]
    assert found.error is not None
    assert "killed" in found.error
    assert found.completed_at is not None


def test_a_job_that_always_loses_its_process_is_given_up(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job(status=JobStatus.IN_PROGRESS, started_at=STARTED, resources={"host": "elsewhere"})
    prefect.states["j1:1"] = FlowState.CRASHED
    for attempt in range(2, CRASHES_BORNE + 1):
        reconciler.once()
        assert prefect.submitted[-1] == ("j1", attempt)
        prefect.states[f"j1:{attempt}"] = FlowState.CRASHED
    reconciler.once()
    assert status(store) is JobStatus.FAILED
    assert len(prefect.submitted) == CRASHES_BORNE - 1


@pytest.mark.parametrize("state", [FlowState.CRASHED, FlowState.FAILED])
def test_so_is_one_whose_process_never_comes_up(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make, state: FlowState
) -> None:
    job()
    for attempt in range(1, CRASHES_BORNE + 1):
        prefect.states[f"j1:{attempt}"] = state
        reconciler.once()
    found = store.jobs.get("j1")
    assert found is not None
    assert found.status is JobStatus.FAILED
    assert "as it says" in (found.error or "")


def test_told_to_fail_a_job_that_only_waited_goes_on(store: Store, prefect: ScriptedPrefect, job: Make) -> None:
    job(started_at=STARTED)
    Reconciler(store, prefect, JobsConfig(after_crash="fail")).once()
    assert prefect.submitted == [("j1", 2)]
    assert status(store) is JobStatus.SCHEDULED


def test_without_prefect_nothing_is_judged(
    store: Store, prefect: ScriptedPrefect, reconciler: Reconciler, job: Make
) -> None:
    job(status=JobStatus.IN_PROGRESS, started_at=STARTED, resources=HERE)
    prefect.up = False
    reconciler.once()
    assert status(store) is JobStatus.IN_PROGRESS
