"""The tables. A change here needs a migration beside it: `migrations/versions`, and REVISION."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

REVISION = "0002"
"""The newest migration: what a store must be at before it is used."""


class Words(TypeDecorator[str]):
    """Text that every database takes: NUL and lone surrogates become escapes (no identifier holds either)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Escape what a database cannot hold."""
        if value is None:
            return None
        value = str(value)  # an enum's name is its own business
        if value.isascii() and "\0" not in value:
            return value
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class Json(TypeDecorator[Any]):
    """A JSON value as text: the databases' own JSON types reorder keys, round numbers or refuse \\u0000."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write the value in ASCII; None is NULL."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read it back."""
        if value is None:
            return None
        try:
            return from_json(value)
        except ValueError:  # lone surrogates, which only Python reads: from_json takes a third of its time
            return json.loads(value)


class Moment(TypeDecorator[datetime]):
    """A time with its zone: UTC inside and outside, also where the database knows no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn it to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return it as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite counts up only columns whose type is exactly INTEGER
_Key = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

row_sets = Table(
    "row_sets",
    metadata,
    Column("set_key", _Key, primary_key=True, autoincrement=True),
    # NULL: a data set's. Else rows that nobody sees: the process that is importing them, or "" once they are dropped
    Column("owner", Words),
    Column("started_at", Moment, nullable=False),
    sqlite_autoincrement=True,  # a key never returns: rows of a deleted set cannot become another's
)

row_chunks = Table(
    "row_chunks",
    metadata,
    Column("set_key", _Key, ForeignKey("row_sets.set_key"), primary_key=True),
    Column("first_row", BigInteger, primary_key=True, autoincrement=False),
    Column("num_rows", Integer, nullable=False),
    Column("digest", Words, nullable=False),  # of all rows up to the last of this chunk
    Column("payload", LargeBinary, nullable=False),  # the lines, joined by newlines; last, as it is long
)

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", Words, primary_key=True),
    Column("set_key", _Key, ForeignKey("row_sets.set_key"), nullable=False, unique=True),
    Column("purpose", Words, nullable=False),
    Column("source", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("provider_id", Words, nullable=False),
    Column("num_rows", BigInteger, nullable=False),
    Column("characters", BigInteger, nullable=False),
    Column("turns", BigInteger, nullable=False),
    Column("digest", Words, nullable=False),
    Column("registered_rows", BigInteger, nullable=False),
    Column("registered_digest", Words, nullable=False),
    Column("created_at", Moment, nullable=False),
)

benchmarks = Table(
    "benchmarks",
    metadata,
    Column("benchmark_id", Words, primary_key=True),
    Column("dataset_id", Words, nullable=False),  # no foreign key: conf/dataset holds data sets too
    Column("scoring_functions", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("created_at", Moment, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("benchmark_id", Words),
    Column("request", Json, nullable=False),
    Column("request_digest", Words, nullable=False),
    Column("config", Words, nullable=False),
    Column("plan_key", Words, nullable=False),
    Column("datasets", Json, nullable=False),
    Column("status", Words, nullable=False),
    Column("error", Words),
    Column("progress", Json),
    Column("metrics", Json, nullable=False),
    Column("links", Json, nullable=False),
    Column("flow_run_id", Words),
    Column("attempt", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("completed_at", Moment),
    Column("resources", Json),
    Index(None, "status"),
    Index(None, "request_digest", "created_at"),
)

job_results = Table(
    "job_results",
    metadata,
    Column("job_id", Words, ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("payload", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("identifier", Words, primary_key=True),
    Column("job_id", Words, ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("step", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("path", Words, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("metrics", Json),
)

agents = Table(
    "agents",
    metadata,
    Column("agent_id", Words, primary_key=True),
    Column("config", Json, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "created_at", "agent_id"),
)

agent_sessions = Table(
    "agent_sessions",
    metadata,
    Column("session_id", Words, primary_key=True),
    # no foreign key: sessions that are not kept lie in another database than their agent
    Column("agent_id", Words, nullable=False),
    Column("session_name", Words, nullable=False),
    Column("started_at", Moment, nullable=False),
    Index(None, "agent_id", "started_at", "session_id"),
)

agent_turns = Table(
    "agent_turns",
    metadata,
    Column("turn_id", Words, primary_key=True),
    Column(
        "session_id", Words, ForeignKey("agent_sessions.session_id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("number", Integer, nullable=False),  # in the session, from 0
    Column("status", Words, nullable=False),
    Column("owner", Words),  # the process that is at it
    Column("request", Json, nullable=False),
    Column("output_message", Json),
    Column("error", Words),
    Column("generations", Integer, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("completed_at", Moment),
)

agent_steps = Table(
    "agent_steps",
    metadata,
    Column("step_id", Words, primary_key=True),
    Column("turn_id", Words, ForeignKey("agent_turns.turn_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("number", Integer, nullable=False),  # in the turn, from 0
    Column("step", Json, nullable=False),
)
