"""Imports: unseen until they are whole, gone when they are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from llsflow.errors import ConflictError, StorageError
from llsflow.store import EMPTY, Batch, Store, chain, encode_row
from llsflow.store.imports import FLUSH_BYTES, FLUSH_ROWS
from llsflow.store.tables import row_chunks, row_sets

ROWS = [encode_row({"id": index, "text": "x" * 200}) for index in range(2 * FLUSH_ROWS)]


def leftovers(store: Store) -> tuple[int, int]:
    """Return how many chunks and sets there are."""
    with store._database.read() as connection:
        chunks, sets = (
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in (row_chunks, row_sets)
        )
    return chunks, sets


def batches(rows: list[bytes], size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        yield Batch(rows[start : start + size], characters=3, turns=1)


@pytest.mark.parametrize("size", [7, FLUSH_ROWS, 2 * FLUSH_ROWS])
def test_any_batches_make_the_same_set(store: Store, size: int) -> None:
    with store.datasets.import_rows() as importing:
        for batch in batches(ROWS, size):
            importing.write(batch)
        made = importing.publish("d", "p", {"type": "rows"}, {"a": 1}, "llsflow")
    assert made.digest == importing.digest == chain(EMPTY, ROWS)
    assert made.num_rows == len(ROWS)
    assert made.characters == 3 * made.turns
    assert [*store.datasets.read("d")] == ROWS


def test_nothing_is_seen_before_it_is_published(store: Store) -> None:
    with store.datasets.import_rows() as importing:
        importing.write(Batch(ROWS))
        assert leftovers(store)[0] > 0
        assert store.datasets.list() == []
        assert store.datasets.abandoned() == []
        importing.publish("d", "p", {}, {}, "llsflow")
        assert store.datasets.page("d", 0, 1).total == len(ROWS)


def test_what_is_not_published_is_removed(store: Store) -> None:
    with store.datasets.import_rows() as importing:
        importing.write(Batch(ROWS))
    assert leftovers(store) == (0, 0)
    with pytest.raises(RuntimeError, match="ended"):
        importing.publish("d", "p", {}, {}, "llsflow")


def test_an_import_that_fails_is_removed(store: Store) -> None:
    def rows() -> Iterator[bytes]:
        yield from ROWS
        raise KeyError

    with pytest.raises(KeyError), store.datasets.import_rows() as importing:  # noqa: PT012
        for row in rows():
            importing.write(Batch([row]))
    assert leftovers(store) == (0, 0)


def test_what_conflicts_changes_nothing(store: Store) -> None:
    for rows in (ROWS[:5], ROWS[:5]):
        with store.datasets.import_rows() as importing:
            importing.write(Batch(rows))
            first = importing.publish("d", "p", {}, {}, "llsflow")
    before = leftovers(store)
    assert before == (1, 1)
    with store.datasets.import_rows() as importing:
        importing.write(Batch(ROWS))
        with pytest.raises(ConflictError, match="other rows and source and provider_id: unregister it"):
            importing.publish("d", "p", {"uri": "x"}, {}, "other")
    assert store.datasets.get("d") == first
    assert leftovers(store) == before


def test_an_empty_set(store: Store) -> None:
    with store.datasets.import_rows() as importing:
        made = importing.publish("d", "p", {}, {}, "llsflow")
    assert (made.num_rows, made.digest) == (0, EMPTY)
    assert store.datasets.page("d", 0, 5).lines == []
    assert store.datasets.digest_at("d", 0) == EMPTY
    grown = store.datasets.append("d", Batch(ROWS[:1]))
    assert grown.digest == chain(EMPTY, ROWS[:1])


def test_rows_that_were_taken_away_are_missed(store: Store) -> None:
    with store.datasets.import_rows() as importing:
        importing.write(Batch(ROWS))
        with store._database.write() as connection:
            connection.execute(row_chunks.delete().where(row_chunks.c.first_row == 0))
        with pytest.raises(StorageError, match="register the data set again"):
            importing.publish("d", "p", {}, {}, "llsflow")
    assert store.datasets.list() == []
    assert leftovers(store) == (0, 0)


IMPORT = """
import sys
from llsflow.store import *
store = Store.open(sys.argv[1])
rows = [encode_row({"id": index, "text": "x" * 200}) for index in range(5000)]
with store.datasets.import_rows() as importing:
    while True:
        importing.write(Batch(rows))
        print("written", flush=True)
"""


def test_a_killed_import_is_cleared_when_the_store_is_next_opened(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", IMPORT, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == "written\n"
        with Store.open(url) as other:  # it lives: its rows stay
            assert other.datasets.abandoned() == []
            assert other._sweeper is None
        process.kill()
    with Store.open(url) as store:
        assert store._sweeper is not None
        store._sweeper.join()
        assert store.datasets.list() == []
        assert leftovers(store) == (0, 0)


def test_a_sweep_that_was_stopped_goes_on_at_the_next_opening(url: str) -> None:
    with Store.open(url) as store:
        with store.datasets.import_rows() as importing:
            importing.write(Batch(ROWS))
            importing.publish("d", "p", {}, {}, "llsflow")
        store.datasets.stop_sweeping()
        assert store.datasets.delete("d") is True
        assert leftovers(store)[0] > 0
    with Store.open(url) as store:
        assert store._sweeper is not None
        store._sweeper.join()
        assert leftovers(store) == (0, 0)


def test_a_flush_is_short() -> None:
    assert FLUSH_BYTES <= 1 << 20
