"""The connection: what is durable, who waits for whom, and errors in words."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from llsflow.errors import StorageError, UnavailableError
from llsflow.store import Batch, Store, encode_row
from llsflow.store.database import Database
from llsflow.store.tables import benchmarks
from tests.patience import PATIENCE_SECONDS


def test_a_durable_transaction_is_on_disk_when_it_ends(url: str) -> None:
    database = Database(url)
    asked, yes, no = ("PRAGMA synchronous", 2, 1) if database.sqlite else ("SHOW synchronous_commit", "on", "off")
    for durable in (True, False, True, True, False, False):
        with database.write(durable=durable) as connection:
            assert connection.exec_driver_sql(asked).scalar() == (yes if durable else no)
    database.close()


def test_writers_of_one_process_come_by_turn(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    order = []

    def write(name: int) -> None:
        with database.write():
            order.append(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    with database.write():
        for name, thread in enumerate(threads):
            thread.start()
            while len(database._turns._waiting) <= name:
                assert thread.is_alive()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]
    database.close()


def test_what_an_event_loop_asks_of_sqlite_is_done_one_by_one_in_a_thread(url: str) -> None:
    database = Database(url)
    begun, threads = threading.Barrier(1 if database.sqlite else 3), set()
    under_way: list[int] = []

    def ask(number: int) -> int:
        under_way.append(number)
        begun.wait(PATIENCE_SECONDS)
        assert not database.sqlite or under_way == [number]
        under_way.remove(number)
        threads.add(threading.current_thread())
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(database.in_thread(ask, number) for number in range(3)))

    assert asyncio.run(main()) == [0, 1, 2]
    assert len(threads) == (1 if database.sqlite else 3)
    database.close()
    assert not any(thread.is_alive() for thread in threads)


def test_readers_wait_for_no_writer(store: Store) -> None:
    with store._database.write() as connection:
        connection.execute(benchmarks.delete())
        assert store.benchmarks.list() == []


def test_an_exception_undoes_the_transaction(store: Store) -> None:
    made = store.benchmarks.register("b", "d", ["f"], {})
    with pytest.raises(KeyError), store._database.write() as connection:  # noqa: PT012
        connection.execute(benchmarks.delete())
        raise KeyError
    assert store.benchmarks.list() == [made]


def test_what_is_stored_stays_out_of_messages(store: Store) -> None:
    row = {**vars(store.benchmarks.register("b", "d", ["f"], {"note": "hunter2"}))}
    with pytest.raises(IntegrityError) as refused, store._database.write() as connection:
        connection.execute(benchmarks.insert().values(row))
    assert "hunter2" not in str(refused.value)


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        with store.datasets.import_rows() as importing:
            made = importing.publish("d", "p", {}, {}, "llsflow")
        with store._database.read() as connection:  # the one connection of the pool, as nothing runs beside
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StorageError, match=r"cannot write to .*store.db: database or disk is full; free space"):
            store.datasets.append("d", Batch([encode_row({"x": "x" * 100_000})]))
        assert store.datasets.get("d") == made


def test_a_file_that_is_held_by_another_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url) as store:
        monkeypatch.setitem(database_arguments(), "timeout", 0)
        impatient = Database(url)
        with store._database.write(), pytest.raises(UnavailableError, match=r"store.db does not answer: database is"):
            impatient.write().__enter__()
        impatient.close()


def database_arguments() -> dict[str, object]:
    from llsflow.store import database

    return database._SQLITE_ARGUMENTS


def test_a_server_that_went_away_is_told_and_found_again(postgres: str) -> None:
    database, other = Database(postgres), Database(postgres)
    with pytest.raises(UnavailableError, match="does not answer: "), database.read() as connection:  # noqa: PT012
        mine = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with other.read() as killer:
            killer.exec_driver_sql(f"SELECT pg_terminate_backend({mine})")
        connection.exec_driver_sql("SELECT 1")
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()
    other.close()
