"""A database in this process's memory, for what is not to outlive it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from llsflow.store.database import Database
from llsflow.store.tables import agent_sessions, agent_steps, agent_turns, metadata


class MemoryDatabase(Database):
    """SQLite without a file: one connection, which one thread has at a time."""

    def __init__(self) -> None:
        """Make the tables of sessions."""
        self.url_shown = "memory"
        self.sqlite = True
        self._one = threading.RLock()
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
        metadata.create_all(self.engine, tables=[agent_sessions, agent_turns, agent_steps])

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give the connection."""
        with self._one, self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Give a transaction."""
        with self._one, self.engine.begin() as connection:
            yield connection
