"""Registering: the rows are in the store as they came, once, or nothing has changed."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.data import registration, stored
from llsflow.data.checks import RowCheck
from llsflow.data.files import NumberedRow
from llsflow.data.registration import append, import_source, register
from llsflow.data.sources import OpenSource
from llsflow.errors import ConflictError, DataError, NotFoundError
from llsflow.schema.datasets import RegisterDatasetRequest
from llsflow.schema.server import FetchConfig, ServerConfig
from llsflow.store import Store, decode_row

ROWS: list[dict[str, Any]] = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(5)]
SERVER = ServerConfig()


def request(source: Any = ROWS, dataset_id: str | None = "d", **changes: Any) -> RegisterDatasetRequest:
    inline = {"type": "rows", "rows": source} if isinstance(source, list) else {"type": "uri", "uri": source}
    body = {"purpose": "post-training/messages", "source": inline, "dataset_id": dataset_id, **changes}
    return RegisterDatasetRequest.model_validate(body)


def held(store: Store, dataset_id: str = "d") -> list[dict[str, Any]]:
    return [decode_row(line) for line in store.datasets.read(dataset_id)]


@pytest.fixture
def state(store: Store) -> Callable[[], object]:
    """Return a function that tells everything that the store holds."""

    def everything() -> object:
        return [(record, held(store, record.dataset_id)) for record in store.datasets.list()]

    return everything


def test_rows_are_registered_as_they_came(store: Store) -> None:
    rows = [{"question": "q", "answer": "a", "n": 1, "x": 1.0, "deep": {"é": [None, True, "\ud800"]}}, ROWS[0]]
    record = register(store, request(rows, metadata={"licence": "CC0"}), SERVER)
    assert held(store) == rows
    assert (record.num_rows, record.turns, record.characters) == (2, 4, 6)
    assert (record.provider_id, record.metadata) == ("llsflow", {"licence": "CC0"})
    assert record == store.datasets.get("d")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# the generator knows our own words, and a column called messages would make another kind of row
NAMES = st.text().map(lambda name: f"-{name}")


@settings(max_examples=25)
@given(extra=st.lists(st.dictionaries(NAMES, JSON, max_size=3), min_size=1, max_size=4))
def test_the_same_rows_have_the_same_digest_inline_and_in_files(extra: list[dict[str, Any]]) -> None:
    store = stored.shared_store()
    rows = [{**more, "prompt": "p", "completion": "c"} for more in extra]
    folder = stored.home.home()
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources: list[Any] = [rows, "lsfs://rows.json", "lsfs://rows.jsonl"]
    found = [register(store, request(source, dataset_id=None), SERVER) for source in sources]
    assert len({record.digest for record in found}) == 1
    assert json.dumps(held(store, found[2].dataset_id)) == json.dumps(rows)


def test_without_an_id_there_is_a_new_one(store: Store) -> None:
    first, second = (register(store, request(dataset_id=None), SERVER) for _ in range(2))
    assert first.dataset_id != second.dataset_id
    assert first.dataset_id.startswith("dataset-")


def test_the_same_again_is_the_same_also_after_appends(store: Store) -> None:
    first = register(store, request(), SERVER)
    assert register(store, request(), SERVER) == first
    longer = append(store, "d", ROWS)
    assert register(store, request(), SERVER) == replace(longer, source=first.source)
    assert held(store) == ROWS * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"source": ROWS[:4]},
        {"source": "data:jsonl," + json.dumps(ROWS[0])},
        {"metadata": {"a": 1}},
    ],
)
def test_something_else_under_the_same_name_changes_nothing(
    store: Store, state: Callable[[], object], changes: dict[str, Any]
) -> None:
    register(store, request(), SERVER)
    before = state()
    with pytest.raises(ConflictError, match="data set 'd' is registered with other"):
        register(store, request(**changes), SERVER)
    assert state() == before


def test_a_bad_row_anywhere_changes_nothing(
    store: Store, state: Callable[[], object], llsflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_BATCH_ROWS", 2)
    lines = [json.dumps(row) for row in ROWS]
    (llsflow_home / "bad.jsonl").write_text("\n".join([*lines, "{oops", *lines, '{"prompt": "x"}', "[]"]))
    before = state()
    with pytest.raises(DataError) as caught:
        register(store, request("lsfs://bad.jsonl"), SERVER)
    assert [mistake.where for mistake in caught.value.mistakes] == [f"lsfs://bad.jsonl:{n}" for n in (6, 12, 13)]
    assert state() == before
    assert not store.datasets.abandoned()


def test_reading_stops_when_enough_is_told(store: Store) -> None:
    rows: Iterator[NumberedRow] = iter([(number, {}) for number in range(1, 1000)])
    with store.datasets.import_rows() as incoming, pytest.raises(DataError) as caught:
        import_source(OpenSource(rows), RowCheck(request().purpose), incoming)
    assert [mistake.where for mistake in caught.value.mistakes] == ["row 1", ""]
    assert next(rows)[0] == 22


@pytest.mark.parametrize(
    ("source", "purpose", "sentence"),
    [
        ([{"question": "q", "answer": "a"}, {"answer": "q"}], "eval/question-answer", "row 2: columns are answer"),
        ([{"question": "q", "answer": "a"}], "eval/messages-answer", "row 1: columns are question, answer: purpose"),
        ("data:csv,a", "post-training/messages", "data:csv: holds no rows: at least one is needed"),
    ],
)
def test_rows_that_are_not_for_the_purpose(store: Store, source: Any, purpose: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        register(store, request(source, purpose=purpose), SERVER)
    assert store.datasets.get("d") is None


def test_older_evaluation_rows_fit_both_purposes(store: Store) -> None:
    rows = [
        {"input_query": "q", "expected_answer": "a"},
        {"chat_completion_input": '[{"role": "user", "content": "q"}]', "expected_answer": "a", "input_query": "q"},
    ]
    for purpose in ("eval/question-answer", "eval/messages-answer"):
        assert register(store, request(rows, dataset_id=None, purpose=purpose), SERVER).num_rows == 2


def test_names_that_mean_something_else(store: Store) -> None:
    with pytest.raises(DataError, match=r"'d:held_out' ends in :held_out"):
        register(store, request(dataset_id="d:held_out"), SERVER)
    for taken in ("iso_dates", "own"):
        with pytest.raises(ConflictError, match=f"data set '{taken}' is a file of conf/dataset"):
            register(store, request(dataset_id=taken), SERVER)


def test_an_empty_set_may_be_registered_inline_and_filled_later(store: Store) -> None:
    assert register(store, request([]), SERVER).num_rows == 0
    assert append(store, "d", ROWS).num_rows == 5


def test_only_the_first_rows_are_kept_to_show(store: Store) -> None:
    record = register(store, request(ROWS * 30), SERVER)
    assert (len(record.source["rows"]), record.num_rows) == (100, 150)


def test_rows_that_grow_when_they_are_unpacked_have_a_limit(store: Store, llsflow_home: Path) -> None:
    """Parquet may hold one long text for many rows."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": "x" * 1000, "completion": "y"}] * 5000
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), llsflow_home / "rows.parquet")
    small = ServerConfig(fetch=FetchConfig(max_bytes=100_000))
    with pytest.raises(DataError, match="holds rows of over 100,000 bytes"):
        register(store, request("lsfs://rows.parquet"), small)


def test_gzipped_files_are_read(store: Store, llsflow_home: Path) -> None:
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    (llsflow_home / "rows.jsonl.gz").write_bytes(gzip.compress(data))
    register(store, request("lsfs://rows.jsonl.gz"), SERVER)
    assert held(store) == ROWS


def test_appends_are_checked_and_leave_out_nothing(store: Store, state: Callable[[], object]) -> None:
    register(store, request(), SERVER)
    before = state()
    with pytest.raises(DataError, match=r"row 2: columns are prompt: purpose"):
        append(store, "d", [ROWS[0], {"prompt": "x"}])
    with pytest.raises(DataError, match="row 1: is of preferences"):
        append(store, "d", [{"prompt": "x", "chosen": "y", "rejected": "z"}])
    assert state() == before
    with pytest.raises(NotFoundError, match="there is no data set 'e'"):
        append(store, "e", ROWS)


def test_a_data_set_that_was_registered_anew_is_looked_at_anew(store: Store) -> None:
    register(store, request(), SERVER)
    append(store, "d", ROWS)
    store.datasets.delete("d")
    preference = {"prompt": "x", "chosen": "y", "rejected": "z"}
    old = register(store, request([preference]), SERVER)
    assert append(store, "d", [preference]).num_rows == 2
    store.datasets.delete("d")
    with pytest.raises(NotFoundError):
        append(store, "d", [preference])
    register(store, request(), SERVER)
    with pytest.raises(ConflictError, match="'d' was registered anew meanwhile"):
        store.datasets.append("d", registration.check_rows([preference], request().purpose), old.created_at)
    assert held(store) == ROWS


def test_what_another_process_needs_can_be_sent_to_it() -> None:
    for thing in (register, append, request(), SERVER):
        assert pickle.loads(pickle.dumps(thing)) == thing  # noqa: S301 - our own


def test_the_errors_of_registering_can_come_back_from_another_process() -> None:
    with pytest.raises(DataError) as caught:
        registration.check_rows([{}], request().purpose)
    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (str(back), back.mistakes) == (str(caught.value), caught.value.mistakes)
