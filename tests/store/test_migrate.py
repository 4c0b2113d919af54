"""The schema: made new or by migrations, the same; and never a newer one's."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from llsflow.errors import StorageError
from llsflow.store import Store
from llsflow.store.database import Database
from llsflow.store.migrate import FOLDER, bring_up_to_date, upgrade
from llsflow.store.tables import REVISION, metadata
from tests.patience import PATIENCE_SECONDS


@pytest.mark.parametrize("way", ["migrated", "made new"])
def test_the_schema_is_that_of_the_tables(url: str, way: str) -> None:
    database = Database(url)
    if way == "migrated":
        with database.write() as connection:
            upgrade(connection, database.url_shown)
    bring_up_to_date(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == REVISION
        if database.sqlite:
            # compare_metadata does not see what keeps a key from coming back
            made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'row_sets'")).scalar_one()
            assert "AUTOINCREMENT" in made
            journal = connection.execute(text("PRAGMA journal_mode")).scalar()
            assert journal == "wal" or way == "migrated"
    database.close()


def test_the_newest_migration_is_the_one_that_is_asked_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_a_failed_migration_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(url)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cut off")

    monkeypatch.setattr("llsflow.store.migrate._version.create", fail)
    with pytest.raises(RuntimeError, match="cut off"):
        bring_up_to_date(database)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    monkeypatch.undo()
    bring_up_to_date(database)
    database.close()


def test_a_newer_store_is_refused(url: str) -> None:
    Store.open(url).close()
    database = Database(url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StorageError, match=r"made by a newer llsflow: its revision is 9999.*up to 0002; upgrade"):
        Store.open(url)


def test_many_may_open_a_new_store_at_once(url: str) -> None:
    """Each with connections and a lock file of its own, as processes are."""
    gate, opened = threading.Barrier(8), []

    def open_one() -> None:
        gate.wait(timeout=PATIENCE_SECONDS)
        with Store.open(url) as store:
            opened.append(store.datasets.list())

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [[]] * 8
