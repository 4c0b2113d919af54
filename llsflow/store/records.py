"""What the store holds, as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from llsflow.schema.jobs import JobStatus

JobKind = Literal["post-training", "eval"]
TurnStatus = Literal["running", "awaiting_input", "completed", "failed"]


@dataclass(frozen=True)
class Batch:
    """Rows on their way into the store."""

    lines: Sequence[bytes]
    """One row each, by `encode_row`."""
    characters: int = 0
    """Of the rows' texts, together."""
    turns: int = 0
    """Messages of the rows, together."""


@dataclass(frozen=True)
class Page:
    """Rows on their way out."""

    payload: bytes
    """Their lines, joined by newlines, of which a line has none."""
    num_rows: int
    total: int
    """Rows of the whole data set."""

    @property
    def lines(self) -> list[bytes]:
        """The rows, one line each."""
        return self.payload.split(b"\n") if self.num_rows else []


@dataclass(frozen=True)
class RowCounts:
    """What the rows of a data set come to; it changes when rows are appended, and nothing else of it does."""

    num_rows: int
    characters: int
    turns: int
    digest: str


@dataclass(frozen=True)
class StoredDataset:
    """A registered data set."""

    dataset_id: str
    purpose: str
    source: dict[str, Any]
    metadata: dict[str, Any]
    provider_id: str
    num_rows: int
    characters: int
    turns: int
    digest: str
    """Of all rows, by `chain`."""
    registered_rows: int
    """Rows that came with the registration: the first ones."""
    registered_digest: str
    created_at: datetime


@dataclass(frozen=True)
class StoredBenchmark:
    """A registered benchmark."""

    benchmark_id: str
    dataset_id: str
    scoring_functions: list[str]
    metadata: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class StoredJob:
    """A posted job."""

    job_id: str
    kind: JobKind
    request: dict[str, Any]
    """The body, as posted."""
    request_digest: str
    config: str
    """The whole experiment, as YAML."""
    plan_key: str
    status: JobStatus
    created_at: datetime
    benchmark_id: str | None = None
    datasets: list[str] = field(default_factory=list)
    """Registered data sets that it reads."""
    error: str | None = None
    """Why it failed, in words."""
    progress: dict[str, Any] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest value of each."""
    links: dict[str, str] = field(default_factory=dict)
    flow_run_id: str | None = None
    attempt: int = 0
    cancel_requested: bool = False
    started_at: datetime | None = None
    completed_at: datetime | None = None
    resources: dict[str, Any] | None = None


class JobChanges(TypedDict, total=False):
    """What may change in a job once it is posted."""

    status: JobStatus
    error: str | None
    progress: dict[str, Any] | None
    metrics: dict[str, float]
    links: dict[str, str]
    flow_run_id: str | None
    attempt: int
    cancel_requested: bool
    started_at: datetime | None
    completed_at: datetime | None
    resources: dict[str, Any] | None


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a training job."""

    identifier: str
    """A model id."""
    job_id: str
    step: int
    """Optimizer steps taken."""
    epoch: int
    """From 0."""
    path: str
    """Relative to LLSFLOW_HOME."""
    created_at: datetime
    metrics: dict[str, Any] | None = None


@dataclass(frozen=True)
class StoredAgent:
    """An agent."""

    agent_id: str
    config: dict[str, Any]
    """Its AgentConfig."""
    created_at: datetime


@dataclass(frozen=True)
class StoredSession:
    """A conversation with an agent."""

    session_id: str
    agent_id: str
    session_name: str
    started_at: datetime


@dataclass(frozen=True)
class StoredTurn:
    """A turn of a session."""

    turn_id: str
    session_id: str
    request: dict[str, Any]
    """The body that began it, as posted."""
    started_at: datetime
    number: int = 0
    """In the session, from 0."""
    status: TurnStatus = "running"
    owner: str | None = None
    """The process that is at it."""
    output_message: dict[str, Any] | None = None
    """The last thing that the model said."""
    error: str | None = None
    """Why it failed, in words."""
    generations: int = 0
    """So far, across its resumptions."""
    completed_at: datetime | None = None
    steps: tuple[dict[str, Any], ...] = ()
    """In their order."""
