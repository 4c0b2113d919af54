"""Data sets: registered, appended to, read by pages, deleted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from llsflow.errors import ConflictError, NotFoundError
from llsflow.store import EMPTY, Batch, Store, StoredDataset, chain, decode_row, encode_row
from llsflow.store.chunks import MAX_BYTES
from llsflow.store.tables import row_chunks


def lines(count: int, start: int = 0) -> list[bytes]:
    return [encode_row({"id": index, "text": "x" * (index % 300)}) for index in range(start, start + count)]


def register(store: Store, rows: list[bytes], dataset_id: str = "d", **other: object) -> StoredDataset:
    what = {"purpose": "eval/question-answer", "source": {"type": "rows"}, "metadata": {}, "provider_id": "llsflow"}
    with store.datasets.import_rows() as importing:
        importing.write(Batch(rows, characters=10 * len(rows), turns=2 * len(rows)))
        return importing.publish(dataset_id, **{**what, **other})  # type: ignore[arg-type]


def test_rows_come_back_by_pages(store: Store) -> None:
    rows = lines(5000)
    made = register(store, rows)
    assert (made.num_rows, made.characters, made.turns) == (5000, 50_000, 10_000)
    assert made.digest == made.registered_digest == chain(EMPTY, rows)
    assert store.datasets.get("d") == made
    for start, limit in ((0, 1), (0, 5000), (4999, 10), (1234, 1000), (5000, 5), (9999, 5), (7, 0)):
        page = store.datasets.page("d", start, limit)
        assert page.lines == rows[start : start + limit]
        assert page.total == 5000
    assert [*store.datasets.read("d")] == rows
    assert [*store.datasets.read("d", 2345)] == rows[:2345]


def test_appends_follow(store: Store) -> None:
    rows = lines(3000)
    first = register(store, rows[:10])
    at = 10
    for size in (1, 1, 500, 0, 3, 1200, 1):
        grown = store.datasets.append("d", Batch(rows[at : at + size], characters=size, turns=size))
        at += size
        assert replace(first, **vars(grown)) == store.datasets.get("d")
        assert (grown.num_rows, grown.digest) == (at, chain(EMPTY, rows[:at]))
        assert store.datasets.page("d", 0, 5000).lines == rows[:at]
    for count in (0, 1, 9, 10, 11, 12, 511, 512, 600, at):
        assert store.datasets.digest_at("d", count) == chain(EMPTY, rows[:count])
    assert store.datasets.digest_at("d", at + 1) is None


def test_registering_again(store: Store) -> None:
    first = register(store, lines(20))
    assert register(store, lines(20)) == first
    grown = replace(first, **vars(store.datasets.append("d", Batch(lines(5)))))
    assert register(store, lines(20)) == grown
    with pytest.raises(ConflictError, match="other rows and metadata"):
        register(store, lines(21), metadata={"a": 1})
    assert store.datasets.get("d") == grown
    assert store.datasets.list() == [grown]


def test_a_data_set_that_is_not_there(store: Store) -> None:
    assert store.datasets.get("no\0pe\ud800") is None
    assert store.datasets.delete("nope") is False
    for call in (
        lambda: store.datasets.page("nope", 0, 1),
        lambda: store.datasets.read("nope"),
        lambda: store.datasets.append("nope", Batch(lines(1))),
        lambda: store.datasets.digest_at("nope", 0),
    ):
        with pytest.raises(NotFoundError, match="there is no data set 'nope'"):
            call()


def test_deleting(store: Store) -> None:
    register(store, lines(10_000))
    reading = store.datasets.read("d")
    next(reading)
    assert store.datasets.delete("d") is True
    assert store.datasets.get("d") is None
    assert store.datasets.abandoned() == []
    with pytest.raises(NotFoundError):
        list(reading)
    assert decode_row(store.datasets.page(register(store, lines(1)).dataset_id, 0, 9).lines[0])["id"] == 0


def test_a_page_stops_before_its_bytes_are_too_many(store: Store) -> None:
    rows = [encode_row({"x": "x" * size}) for size in (100, 100, 100, 5000, 10)]
    register(store, rows)
    size = len(rows[0])
    assert store.datasets.page("d", 0, 5, max_bytes=2 * size).lines == rows[:2]
    assert store.datasets.page("d", 0, 5, max_bytes=2 * size - 1).lines == rows[:1]
    assert store.datasets.page("d", 0, 5, max_bytes=1).lines == rows[:1]
    assert store.datasets.page("d", 3, 5, max_bytes=1).lines == rows[3:4]
    assert store.datasets.page("d", 3, 5, max_bytes=10**9).lines == rows[3:]


def test_single_rows_stay_in_few_chunks(store: Store) -> None:
    register(store, lines(1))
    rows = [encode_row({"id": index}) for index in range(400)]
    for row in rows:
        store.datasets.append("d", Batch([row]))
    with store._database.read() as connection:
        counts = connection.execute(select(row_chunks.c.num_rows).order_by(row_chunks.c.first_row)).scalars().all()
    assert counts == [64] * 6 + [17]
    assert store.datasets.page("d", 1, 1000).lines == rows


def test_a_failed_append_changes_nothing(store: Store) -> None:
    made = register(store, lines(10))
    with pytest.raises(Exception, match="int"):
        store.datasets.append("d", Batch(lines(5), characters="many"))  # type: ignore[arg-type]
    assert store.datasets.get("d") == made
    assert store.datasets.page("d", 0, 100).lines == lines(10)


numbers = itertools.count()
SIZES = st.integers(0, 50) | st.sampled_from([MAX_BYTES - 100, MAX_BYTES, MAX_BYTES + 1])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(SIZES, max_size=12), min_size=1, max_size=6), st.data())
def test_any_batches_any_pages(store: Store, sizes: list[list[int]], data: st.DataObject) -> None:
    name = f"d{next(numbers)}"
    rows = [[encode_row({"x": "é" * (size // 2), "i": index}) for index, size in enumerate(batch)] for batch in sizes]
    register(store, rows[0], name)
    for batch in rows[1:]:
        store.datasets.append(name, Batch(batch))
    every = [line for batch in rows for line in batch]
    found = store.datasets.get(name)
    assert found is not None
    assert (found.num_rows, found.digest) == (len(every), chain(EMPTY, every))
    start = data.draw(st.integers(0, len(every) + 1))
    limit = data.draw(st.integers(0, len(every) + 1))
    assert store.datasets.page(name, start, limit).lines == every[start : start + limit]
    assert [*store.datasets.read(name, limit)] == every[:limit]
    count = data.draw(st.integers(0, len(every)))
    assert store.datasets.digest_at(name, count) == chain(EMPTY, every[:count])
