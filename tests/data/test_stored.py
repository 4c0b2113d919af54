"""Rows of registered data sets by address, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llsflow.data import stored
from llsflow.data.checks import check_rows
from llsflow.data.dataset import DatasetSource, inspect, locate, portable, rows_of
from llsflow.data.stored import StoreAddress
from llsflow.errors import DataError, NotFoundError
from llsflow.schema.datasets import DatasetConfig, DatasetPurpose
from llsflow.store import EMPTY, Store, StoredDataset, chain, encode_row

ROWS: list[dict[str, Any]] = [{"prompt": f"q {i} é", "completion": f"a {i}"} for i in range(10)]
TRAINING = DatasetPurpose.POST_TRAINING_MESSAGES


def put(store: Store, dataset_id: str = "d", rows: list[dict[str, Any]] = ROWS) -> StoredDataset:
    with store.datasets.import_rows() as incoming:
        incoming.write(check_rows(rows, TRAINING))
        return incoming.publish(dataset_id, TRAINING, {"type": "rows", "rows": []}, {}, "llsflow")


def config(uri: str, **changes: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"dataset_id": "d", "uri": uri, **changes})


@pytest.mark.parametrize(
    "address",
    [StoreAddress("d"), StoreAddress("org/d:v1", 3), StoreAddress("d.x", 0, "ab"), StoreAddress("d", None, "ab")],
)
def test_an_address_reads_back(address: StoreAddress) -> None:
    assert StoreAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "uri",
    ["store://", "store://?rows=1", "store://d?rows=-1", "store://d?rows=x", "store://d?row=1", "store://d?rows=²"],
)
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(DataError, match="is not an address of stored rows: write store://<dataset_id>"):
        StoreAddress.parse(uri)


def test_stored_rows_are_those_of_a_file_with_the_same_rows(store: Store, tmp_path: Path) -> None:
    record = put(store)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(encode_row(row) + b"\n" for row in ROWS))
    of_file, of_store = (inspect(locate(config(uri))) for uri in (str(path), "store://d"))
    assert of_file == of_store
    assert of_store.digest == record.digest
    assert [row for _, row in rows_of(locate(config("store://d")), "d")] == ROWS


def test_facts_of_a_whole_set_come_from_its_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    found = locate(config("store://d"))
    monkeypatch.setattr(DatasetSource, "read", lambda *_: pytest.fail("rows were read"))
    assert inspect(found).rows == 10


def test_what_is_appended_later_is_not_read(store: Store) -> None:
    put(store)
    found = locate(config("store://d"))
    before = inspect(found)
    store.datasets.append("d", check_rows(ROWS, TRAINING))
    assert len(rows_of(found, "d")) == 10
    assert inspect(found) == before
    assert inspect(locate(config("store://d"))).rows == 20
    # another process makes the source anew from its record
    assert [row for _, row in rows_of(DatasetSource(DatasetConfig(**portable(found.config)), None), "d")] == ROWS


def test_the_first_rows_have_a_digest_of_their_own(store: Store) -> None:
    put(store)
    facts = inspect(locate(config("store://d?rows=4")))
    assert (facts.rows, facts.turns) == (4, 8)
    assert facts.digest == chain(EMPTY, [encode_row(row) for row in ROWS[:4]])
    address, _ = stored.find("store://d?rows=4")
    assert address.digest == facts.digest


def test_rows_are_held_out_of_stored_sets_too(store: Store) -> None:
    put(store)
    found = locate(config("store://d", hold_out=0.2))
    facts = inspect(found)
    assert (facts.rows, facts.held_out) == (10, 2)
    assert len(rows_of(found, "d:held_out")) == 2
    assert facts.digest == inspect(locate(config("store://d"))).digest


def test_refusals_name_what_was_found_and_what_is_allowed(store: Store) -> None:
    record = put(store)
    for uri, sentence in (
        ("store://e", r"data set e: is not registered in the store .*; registered are: d$"),
        ("store://d?rows=11", "data set d: holds 10 rows, 11 are asked for: lower rows="),
        ("store://d?digest=00", f"its first 10 rows have the digest {record.digest}, not 00"),
        (f"store://d?rows=9&digest={record.digest}", "its first 9 rows have the digest"),
    ):
        with pytest.raises(DataError, match=sentence):
            locate(config(uri))


def test_an_empty_set_cannot_be_used(store: Store) -> None:
    put(store, rows=[])
    with pytest.raises(DataError, match="data set d: holds no rows"):
        inspect(locate(config("store://d")))


def test_preferences_are_counted(store: Store) -> None:
    put(store, rows=[{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert inspect(locate(config("store://d"))).preferences == 1


def test_a_set_that_is_deleted_meanwhile_is_told(store: Store) -> None:
    put(store)
    found = locate(config("store://d"))
    store.datasets.delete("d")
    with pytest.raises(NotFoundError, match="there is no data set 'd'"):
        rows_of(found, "d")


def test_asking_makes_no_store(llsflow_home: Path) -> None:
    assert not stored.store_exists()
    assert not llsflow_home.exists()
