"""An open store."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from sqlalchemy import URL

    from llsflow.store.agents import Agents
    from llsflow.store.benchmarks import Benchmarks
    from llsflow.store.database import Database
    from llsflow.store.datasets import Datasets
    from llsflow.store.jobs import Jobs
    from llsflow.store.sessions import Sessions


class Store:
    """Data sets with their rows, benchmarks, jobs, agents and their sessions.

    For many threads, and many processes that each open their own.
    """

    def __init__(
        self,
        database: Database,
        datasets: Datasets,
        benchmarks: Benchmarks,
        jobs: Jobs,
        agents: Agents,
        sessions: Sessions,
    ) -> None:
        self._database = database
        self.agents = agents
        self.sessions = sessions
        self._unkept: Sessions | None = None
        self._sweeper: threading.Thread | None = None
        self._guard = threading.Lock()
        self.datasets = datasets
        self.benchmarks = benchmarks
        self.jobs = jobs

    @classmethod
    def open(cls, url: str | None = None) -> Store:
        """Open the store at `url`, made or migrated first where needed.

        Without a URL: LLSFLOW_STORE_URL, else store.db under LLSFLOW_HOME. Rows that a killed process left half
        imported are removed in the background.

        Raises:
            ConfigError: the URL is no store's.
            UnavailableError: the database does not answer.
            StorageError: its file cannot be used, or a newer llsflow made it.
        """
        from llsflow.store.agents import Agents
        from llsflow.store.benchmarks import Benchmarks
        from llsflow.store.database import Database
        from llsflow.store.datasets import Datasets
        from llsflow.store.jobs import Jobs
        from llsflow.store.migrate import bring_up_to_date
        from llsflow.store.sessions import Sessions

        database = Database(url or os.environ.get("LLSFLOW_STORE_URL") or _default_url())
        try:
            database.prepare()
            bring_up_to_date(database)
            parts = (Datasets(database), Benchmarks(database), Jobs(database), Agents(database), Sessions(database))
            store = cls(database, *parts)
            store._sweep()
        except BaseException:
            database.close()
            raise
        return store

    @property
    def url_shown(self) -> str:
        """The store's URL without its password."""
        return self._database.url_shown

    def ask(self) -> None:
        """Make sure that it answers.

        Raises:
            UnavailableError, StorageError: it does not, and why.
        """
        from sqlalchemy import literal, select

        from llsflow.store.tables import agents

        with self._database.read() as connection:
            # of a table: SQLite would not look at its file for less
            connection.execute(select(literal(1)).select_from(agents).limit(1)).all()

    @property
    def unkept_sessions(self) -> Sessions:
        """The sessions of this process that nothing keeps once it ends."""
        from llsflow.store.memory import MemoryDatabase
        from llsflow.store.sessions import Sessions

        with self._guard:
            self._unkept = self._unkept or Sessions(MemoryDatabase())
            return self._unkept

    def close(self) -> None:
        """Close the connections; a sweep under way stops after its current transaction."""
        self.datasets.stop_sweeping()
        if self._sweeper is not None:
            self._sweeper.join()
        self._database.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _sweep(self) -> None:
        if self.datasets.abandoned():
            self._sweeper = threading.Thread(target=self.datasets.sweep, name="llsflow-store-sweep", daemon=True)
            self._sweeper.start()


def _default_url() -> URL:
    from sqlalchemy import URL

    from llsflow.home import home

    # not as text, which a home with a question mark in its name would not come out of as it went in
    return URL.create("sqlite", database=str(home() / "store.db"))
