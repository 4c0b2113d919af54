"""The connection: SQLite or PostgreSQL, short transactions, and errors in words."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from llsflow.errors import ConfigError, Mistake, StorageError, UnavailableError
from llsflow.home import storage_errors
from llsflow.store.turns import Turns

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

P = ParamSpec("P")
T = TypeVar("T")

SERVER_THREADS = 16
"""In which an event loop's requests to a database server are made."""

BUSY_SECONDS = 60
"""How long a writer waits for those of other processes."""

BULK_BEFORE_CHECKPOINT = 16
"""Transactions that are not durable (about 256 KB each) between two copies of SQLite's log into its file."""

_ALLOWED = "sqlite:////folder/store.db or postgresql://user:password@host:port/database"


class Database:
    """One database, its pool of connections, and its way to write."""

    def __init__(self, url: str | URL) -> None:
        """Prepare the pool; nothing is connected yet.

        Raises:
            ConfigError: the URL is no store's.
        """
        self.url = _checked(url)
        # user, host and database: what follows ? may hold a password too
        self.url_shown = self.url.set(query={}).render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._turns = Turns()
        self._bulk = 0
        self.engine = create_engine(
            self.url,
            connect_args=_SQLITE_ARGUMENTS if self.sqlite else {"connect_timeout": 5},
            pool_size=8,
            max_overflow=24,
            pool_use_lifo=True,
            pool_pre_ping=not self.sqlite,
            hide_parameters=True,  # rows and bodies stay out of messages and logs
        )
        if self.sqlite:
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
            self._reader = self.engine
        else:
            self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self.engine.execution_options(write="durable")
        self._loose_writer = self.engine.execution_options(write="loose")

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection on which each statement sees the newest state, without waiting for a writer."""
        with self._errors(), self._reader.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Give a transaction: committed at the end, and then on disk; undone when an exception leaves it.

        One that is not durable is on disk when the next durable one is.
        """
        engine = self._writer if durable else self._loose_writer
        with self._errors(), self._turns if self.sqlite else contextlib.nullcontext(), engine.begin() as connection:
            if not (durable or self.sqlite):
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
            yield connection
        if self.sqlite and not durable:
            self._checkpoint()

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function that asks this database returns, called in a thread of its own."""
        import asyncio

        called = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, called)

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        # one for SQLite: more would wait for its lock, and each time for Python's, which costs a server a fifth of its
        # turns
        return ThreadPoolExecutor(1 if self.sqlite else SERVER_THREADS, thread_name_prefix="store")

    def _checkpoint(self) -> None:
        """Now and then copy what bulk writes left in SQLite's log into its file, while others may write.

        SQLite would do so within a commit, and a writer of this process would wait for it.
        """
        self._bulk = (self._bulk + 1) % BULK_BEFORE_CHECKPOINT
        if self._bulk == 0:
            with self.read() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def lock_name(self, connection: Connection, kind: str, name: str) -> None:
        """Keep every other transaction from making the same thing until this one ends.

        SQLite has one writer at a time anyway.
        """
        if not self.sqlite:
            number = int.from_bytes(hashlib.sha256(f"{kind} {name}".encode()).digest()[:8], "big", signed=True)
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def prepare(self) -> None:
        """Make the folder of an SQLite file.

        Raises:
            StorageError: it cannot be made.
        """
        if self.sqlite and self.url.database:
            folder = Path(self.url.database).parent
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Close every idle connection, once what is under way in threads is done."""
        if "_threads" in vars(self):
            self._threads.shutdown()
        self.engine.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            words = self._file_trouble(cause) if isinstance(cause, sqlite3.Error) else None
            if words is not None:
                raise StorageError(words) from None
            if not isinstance(error, OperationalError | InterfaceError | PoolTimeout):
                raise  # the statement's fault, not the server's
            # without the chain: a driver's message may quote the connection string
            raise UnavailableError(f"the store {self.url_shown} does not answer: {self._words(cause)}") from None

    def _file_trouble(self, error: sqlite3.Error) -> str | None:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return f"{self.url.database} is not a store, or is damaged: {error}; move it away or restore it"
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return f"cannot write to {self.url.database}: {error}; free space or change its permissions"
        return None

    def _words(self, error: BaseException | None) -> str:
        words = (str(error).splitlines() or ["no reason given"])[0]
        return words.replace(self.url.password, "***") if isinstance(self.url.password, str) else words


_SQLITE_ARGUMENTS: dict[str, Any] = {
    "isolation_level": None,  # transactions begin where we say so, never by themselves
    "timeout": BUSY_SECONDS,
    "check_same_thread": False,  # the pool hands a connection to one thread at a time
}


def _set_up_sqlite(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA wal_autocheckpoint=4000")  # 16 MB: a copy of the log delays fewer than 1 % of appends
    cursor.execute("PRAGMA journal_size_limit=67108864")
    cursor.close()
    entry.info["durable"] = True


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads first could lose its right to write."""
    write = connection.get_execution_options().get("write")
    if write is None:
        return
    durable = write == "durable"
    if connection.info["durable"] != durable:  # SQLite takes this only outside a transaction
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.info["durable"] = durable
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _checked(text: str | URL) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _refused("is not a URL") from None
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        _require_psycopg()
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise _refused(f"names the database {url.drivername!r}")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise _refused("names no file: jobs run in processes of their own and read the same store")
    return url


def _refused(found: str) -> ConfigError:
    return ConfigError([Mistake("LLSFLOW_STORE_URL", f"{found}; allowed: {_ALLOWED}")])


def _require_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise ConfigError(
            [Mistake("LLSFLOW_STORE_URL", "PostgreSQL needs psycopg: pip install 'llsflow[postgres]'")]
        ) from None
