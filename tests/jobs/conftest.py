"""A store, and a Prefect that says what the test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from llsflow.errors import UnavailableError
from llsflow.plan import FlowState, FlowStatus
from llsflow.schema.jobs import JobStatus
from llsflow.store import Store, StoredJob


@dataclass
class ScriptedPrefect:
    """A Submitter whose runs are in the states that the test sets."""

    states: dict[str, FlowState] = field(default_factory=dict)
    submitted: list[tuple[str, int]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    up: bool = True

    def ready(self) -> bool:
        return self.up

    def submit(self, job_id: str, attempt: int, tags: Sequence[str] = ()) -> str:
        if not self.up:
            raise UnavailableError("Prefect does not answer")
        self.submitted.append((job_id, attempt))
        self.states[f"{job_id}:{attempt}"] = FlowState.WAITING
        return f"{job_id}:{attempt}"

    def statuses(self, flow_run_ids: Sequence[str]) -> Mapping[str, FlowStatus]:
        return {name: FlowStatus(self.states.get(name, FlowState.UNKNOWN), "as it says") for name in flow_run_ids}

    def cancel(self, flow_run_id: str) -> None:
        self.cancelled.append(flow_run_id)


@pytest.fixture
def prefect() -> ScriptedPrefect:
    return ScriptedPrefect()


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as opened:
        yield opened


@pytest.fixture
def job(store: Store) -> Callable[..., StoredJob]:
    """Store a job, changed as the test likes."""

    def make(job_id: str = "j1", **changes: Any) -> StoredJob:
        known: dict[str, Any] = {
            "kind": "post-training",
            "request": {},
            "request_digest": f"digest of {job_id}",
            "config": "name: j1\n",
            "plan_key": "k",
            "status": JobStatus.SCHEDULED,
            "created_at": datetime.now(UTC),
            "flow_run_id": f"{job_id}:1",
            "attempt": 1,
        }
        made, _ = store.jobs.create(StoredJob(job_id=job_id, **{**known, **changes}))
        return made

    return make
