"""The schema of a store, brought to what this version needs before anything else is done with it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from llsflow.errors import StorageError
from llsflow.home import locked
from llsflow.store.database import Database
from llsflow.store.tables import REVISION, metadata

FOLDER = Path(__file__).parent / "migrations"

_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
_LOCK = 0x6C6C73666C6F77  # any number that no other program takes for its advisory lock


def bring_up_to_date(database: Database) -> None:
    """Make the tables of a new store, or migrate an older one; nothing where it is at REVISION.

    Raises:
        StorageError: a newer llsflow made this store.
        UnavailableError: the database does not answer.
    """
    if _found(database) == REVISION:
        return
    if database.sqlite:
        with locked("store", "another process that opens the store"):
            with database.read() as connection:  # kept by the file; not possible within a transaction
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            _migrate(database)
    else:
        _migrate(database)


def _found(database: Database) -> str | None:
    """Return the revision of the store; None for a new one."""
    with database.read() as connection:
        # asked first: another process may be making the store at this moment
        if not inspect(connection).has_table(_version.name):
            return None
        return connection.execute(select(_version.c.version_num)).scalar()


def _migrate(database: Database) -> None:
    with database.write() as connection:
        if not database.sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        if not inspect(connection).has_table(_version.name):
            metadata.create_all(connection)
            _version.create(connection)
            connection.execute(insert(_version).values(version_num=REVISION))
        elif connection.execute(select(_version.c.version_num)).scalar() != REVISION:
            upgrade(connection, database.url_shown)


def upgrade(connection: Connection, shown: str) -> None:
    """Run the migrations that the store has not had, in the transaction of `connection`.

    Raises:
        StorageError: its revision is none of ours.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    found = None
    if inspect(connection).has_table(_version.name):
        found = connection.execute(select(_version.c.version_num)).scalar()
    known: object = None
    with contextlib.suppress(CommandError):
        known = found is None or ScriptDirectory.from_config(config).get_revision(found)
    if not known:
        raise StorageError(
            f"the store {shown} was made by a newer llsflow: its revision is {found}, and this one knows up to "
            f"{REVISION}; upgrade llsflow, or set LLSFLOW_STORE_URL to another store"
        )
    command.upgrade(config, "head")
