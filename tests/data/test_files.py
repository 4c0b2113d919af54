"""Files of rows: what is read, in pieces however they fall, and what is refused with its place."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.data import files
from llsflow.data.files import read_rows, read_stream
from llsflow.errors import DataError, Mistake

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6)


def read(data: bytes, kind: str, **limits: Any) -> tuple[list[tuple[int, dict[str, Any]]], list[Mistake]]:
    problems: list[Mistake] = []
    return list(read_stream(io.BytesIO(data), kind, "f", problems, **limits)), problems


def exactly(rows: Any) -> str:
    return json.dumps(rows)


@given(rows=ROWS, size=st.integers(1, 40), indent=st.sampled_from([None, 1]), wide=st.booleans())
def test_json_gives_its_rows_exactly_in_whatever_pieces(
    rows: list[dict[str, Any]], size: int, indent: int | None, wide: bool
) -> None:
    data = json.dumps(rows, indent=indent, ensure_ascii=not wide).encode("utf-8", "surrogatepass" if wide else "strict")
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", size)
        found, problems = read(data, ".json")
    assert not problems
    assert exactly([row for _, row in found]) == exactly(rows)
    assert [number for number, _ in found] == list(range(1, len(rows) + 1))


@given(rows=ROWS, size=st.integers(1, 40), end=st.sampled_from(["\n", "\r\n"]))
def test_json_lines_give_their_rows_exactly_in_whatever_pieces(rows: list[dict[str, Any]], size: int, end: str) -> None:
    data = "".join(json.dumps(row) + end for row in rows).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", size)
        found, problems = read(data, ".jsonl")
    assert not problems
    assert exactly([row for _, row in found]) == exactly(rows)


@given(
    cells=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), max_size=5),
    size=st.integers(1, 40),
)
def test_csv_cells_are_texts_exactly_in_whatever_pieces(cells: list[list[str]], size: int) -> None:
    import csv

    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", size)
        found, problems = read(text.getvalue().encode(), ".csv")
    assert not problems
    assert [list(row.values()) for _, row in found] == cells


@pytest.mark.parametrize(
    ("text", "where", "sentence"),
    [
        ('[{"a": 1}, {"a": }]', "f:1", "not JSON: Expecting value"),
        ('[\n{"a": 1},\n\n{"a" 2}]', "f:4", r"Expecting ':' delimiter.*\(row 2\)"),
        ('[\n{\n"a": 1\n},\n{"a" 2}]', "f:5", r"Expecting ':' delimiter.*\(row 2\)"),
        ('[{"a": 1} {"a": 2}]', "f:1", "',' or ']' is missing after row 1"),
        ('[{"a": 1},]', "f:1", "a comma without a row after it"),
        ('[{"a": 1}', "f:1", "',' or ']' is missing after row 1"),
        ('[{"a": 1', "f:1", "not JSON"),
        ('[{"a": 1}] {"b": 2}', "f:1", "something follows the end of the list"),
        ('{"a": 1}', "f:1", "begins with '{', not a list of rows"),
        ("  ", "f:1", "begins with nothing, not a list of rows"),
        ('[{"a": NaN}]', "f:1", "NaN is no number there; write null"),
        ('[{"a": 1}, 12, "x"]', "f:2", "a int, not an object"),
        ("[" + "[" * 100_000, "f:1", "nested too deeply|recursion"),
    ],
)
def test_json_that_is_none(text: str, where: str, sentence: str) -> None:
    import re

    _, problems = read(text.encode(), ".json")
    assert problems[0].where == where
    assert re.search(sentence, problems[0].message)


def test_a_long_json_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with path.open("w") as file:
        file.write("[" + ",".join(json.dumps({"a": "x" * 1000}) for _ in range(30_000)) + "]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path, [])) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("line", ['{"a": Infinity}', '{"a": ' + "9" * 5000 + "}", '{"a":' + "[" * 100_000])
def test_lines_that_json_does_not_allow_are_told(line: str) -> None:
    found, problems = read((line + '\n{"a": 1}\n').encode(), ".jsonl")
    assert [number for number, _ in found] == [2]
    assert problems[0].where == "f:1"


def test_what_follows_the_row_in_its_line_is_told() -> None:
    assert "Extra data at column 9" in read(b'{"a": 1} {"b": 2}\n', ".jsonl")[1][0].message


def test_a_gzip_that_unpacks_to_too_much_is_left_early(tmp_path: Path) -> None:
    bomb = gzip.compress(b'{"a": 1}\n' * 1_000_000)
    assert len(bomb) < 50_000
    with pytest.raises(DataError, match="is over 100,000 bytes when unpacked: that is the limit"):
        read(bomb, ".jsonl", max_bytes=100_000)


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".json"])
def test_a_row_without_an_end_does_not_fill_the_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ROW_BYTES", 10_000)
    monkeypatch.setattr(files, "_CHUNK_BYTES", 1000)
    start = b'[{"a": "' if kind == ".json" else b'"'
    with pytest.raises(DataError, match=r"of over 10,000 (bytes|characters): that is the limit"):
        read(gzip.compress(start + b"x" * 1_000_000), kind)


def test_a_header_that_names_a_column_twice_is_refused() -> None:
    with pytest.raises(DataError, match="the header names 'a' more than once"):
        read(b"a,b,a\n1,2,3\n", ".csv")


def test_a_cell_may_be_a_long_document() -> None:
    assert len(read(b"a\n" + b"x" * 500_000, ".csv")[0][0][1]["a"]) == 500_000


def test_parquet_values_become_what_json_has(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "day": datetime.date(2024, 2, 29),
            "at": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
            "price": decimal.Decimal("1.10"),
            "count": 3,
            "share": 0.5,
            "nested": {"days": [datetime.date(2024, 1, 1)]},
            "gone": None,
        }
    ]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    ((_, row),) = read_rows(path, [])
    assert row == {
        "day": "2024-02-29",
        "at": "2024-02-29T12:30:00+00:00",
        "price": "1.10",
        "count": 3,
        "share": 0.5,
        "nested": {"days": ["2024-01-01"]},
        "gone": None,
    }


def test_nulls_that_parquet_has_filled_in_are_not_there(tmp_path: Path) -> None:
    """All objects of a column have the same keys, so that a call is written with the arguments of all functions."""
    import pyarrow
    import pyarrow.parquet

    calls = [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "clock", "arguments": {"zone": "CET"}}]
    rows = [{"calls": [call], "gone": None} for call in calls]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert [row for _, row in read_rows(path, [])] == rows


def test_parquet_columns_without_a_form_in_json_are_told(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": b"\x00"}, {"a": None}]), path)
    problems: list[Mistake] = []
    assert [number for number, _ in read_rows(path, problems)] == [2]
    assert str(problems[0]) == f"{path}:1: a holds bytes, which have no form in JSON: write text"


def test_parquet_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    table = pyarrow.Table.from_pylist([{"a": "x" * 1000}] * 10_000)
    pyarrow.parquet.write_table(table, path, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="is over 1,000,000 bytes when unpacked"):
        read(path.read_bytes(), ".parquet", max_bytes=1_000_000)
