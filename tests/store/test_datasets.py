"""Data sets: registered, appended to, read by pages, deleted."""

from __future__ import annotations

import pytest

from llsflow.errors import ConflictError, NotFoundError
from llsflow.store import EMPTY, Batch, Store, StoredDataset, chain, decode_row, encode_row


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
    register(store, rows[:10])
    at = 10
    for size in (1, 1, 500, 0, 3, 1200, 1):
        grown = store.datasets.append("d", Batch(rows[at : at + size], characters=size, turns=size))
        at += size
        assert grown == store.datasets.get("d")
        assert (grown.num_rows, grown.digest) == (at, chain(EMPTY, rows[:at]))
        assert (grown.registered_rows, grown.registered_digest) == (10, chain(EMPTY, rows[:10]))
        assert store.datasets.page("d", 0, 5000).lines == rows[:at]
    for count in (0, 1, 9, 10, 11, 12, 511, 512, 600, at):
        assert store.datasets.digest_at("d", count) == chain(EMPTY, rows[:count])
    assert store.datasets.digest_at("d", at + 1) is None


def test_registering_again(store: Store) -> None:
    first = register(store, lines(20))
    assert register(store, lines(20)) == first
    grown = store.datasets.append("d", Batch(lines(5)))
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
    register(store, lines(4000))
    reading = store.datasets.read("d")
    next(reading)
    assert store.datasets.delete("d") is True
    assert store.datasets.get("d") is None
    assert store.datasets.abandoned() == []
    with pytest.raises(NotFoundError):
        list(reading)
    assert decode_row(store.datasets.page(register(store, lines(1)).dataset_id, 0, 9).lines[0])["id"] == 0
