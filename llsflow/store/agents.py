"""Agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import bindparam, delete, insert, select

from llsflow.store.database import Database
from llsflow.store.records import StoredAgent
from llsflow.store.tables import agents

T = TypeVar("T")

_ONE = select(agents).where(agents.c.agent_id == bindparam("of_agent"))


class Agents:
    """The agents of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, agent: StoredAgent) -> None:
        """Store a new agent, on disk when this returns."""
        with self._database.write() as connection:
            connection.execute(insert(agents).values(vars(agent)))

    def get(self, agent_id: str) -> StoredAgent | None:
        """Return the agent, or None."""
        with self._database.read() as connection:
            found = connection.execute(_ONE, {"of_agent": agent_id}).mappings()
            return next((StoredAgent(**row) for row in found), None)

    def page(self, start: int, limit: int | None) -> tuple[Sequence[StoredAgent], bool]:
        """Return up to `limit` agents in the order of their creation, and whether there are more."""
        every = select(agents).order_by(agents.c.created_at, agents.c.agent_id).offset(start)
        with self._database.read() as connection:
            found = connection.execute(every.limit(one_more(limit))).mappings()
            return cut([StoredAgent(**row) for row in found], limit)

    def delete(self, agent_id: str) -> bool:
        """Remove the agent, and return whether it was there; its sessions are removed first, by `Sessions`."""
        with self._database.write() as connection:
            return connection.execute(delete(agents).where(agents.c.agent_id == agent_id)).rowcount > 0


def one_more(limit: int | None) -> int | None:
    """Return how many are asked for, so that it shows whether there are more than `limit`."""
    return None if limit is None else limit + 1


def cut(found: list[T], limit: int | None) -> tuple[list[T], bool]:
    """Return the first `limit` of what was found, and whether there was more."""
    return (found, False) if limit is None else (found[:limit], len(found) > limit)
