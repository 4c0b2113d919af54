"""Data sets: files of every kind, errors with file and row, splits by content, overlaps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.data import preference_row
from llsflow.data.dataset import DatasetSource, inspect, locate, overlap, rows_of
from llsflow.errors import DataError
from llsflow.schema.datasets import DatasetConfig
from llsflow.schema.training import DatasetFormat

ROWS: list[dict[str, Any]] = [{"prompt": f"q {i} é", "completion": f'a, "{i}"\nnext'} for i in range(20)]


def write(folder: Path, name: str, rows: list[dict[str, Any]] | None = None) -> Path:
    path, rows = folder / name, ROWS if rows is None else rows
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix == ".jsonl":
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif plain.suffix == ".json":
        data = json.dumps(rows).encode()
    elif plain.suffix == ".csv":
        import csv
        import io

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        import io

        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        data = buffer.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def source(path: Path, **changes: Any) -> DatasetSource:
    return locate(DatasetConfig.model_validate({"dataset_id": "d", "uri": str(path), **changes}))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str, packed: str) -> None:
    found = source(write(tmp_path, f"rows{suffix}{packed}"))
    assert [row for _, row in rows_of(found, "d")] == ROWS
    facts = inspect(found)
    assert (facts.rows, facts.held_out, facts.turns) == (20, 0, 40)


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.csv"):
        path = write(tmp_path, name)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert rows_of(source(path), "d")[0][1] == ROWS[0]


def test_all_bad_rows_are_told_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        '{"prompt": "a", "completion": "b"}',
        "{oops",
        "",
        "[1]",
        '{"prompt": "a"}',
        '{"prompt": "a", "completion": 1}',
    ]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        inspect(source(path))
    told = {mistake.where: mistake.message for mistake in caught.value.mistakes}
    assert set(told) == {f"{path}:{number}" for number in (2, 4, 5, 6)}
    assert "not JSON" in told[f"{path}:2"]
    assert "a list, not an object" in told[f"{path}:4"]


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("nonsense\n" * 1000)
    with pytest.raises(DataError, match="the same in 999 more rows: 2, 3, "):
        inspect(source(path))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no rows"),
        (b"\n\n", "holds no rows"),
        (b'{"prompt": "\xff", "completion": "x"}\n', "not UTF-8"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        inspect(source(path))


def test_csv_with_a_ragged_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\na,b,c\n")
    with pytest.raises(DataError, match=r"rows.csv:3: 3 cells, but the header names 2 columns"):
        inspect(source(path))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz"])
def test_a_file_that_is_not_what_it_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is text")
    with pytest.raises(DataError, match=name):
        inspect(source(tmp_path / name))


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl")
    with pytest.raises(DataError, match=r"no file .*trian.jsonl; did you mean 'train.jsonl'\?"):
        source(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match="is a folder: name one file in it"):
        source(tmp_path)


@pytest.mark.parametrize("uri", ["https://x/y.jsonl", "s3://b/k.csv", "file:///etc/passwd", "data:csv;base64,eA=="])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(DataError, match="is not available: allowed are a local path, conf://"):
        locate(DatasetConfig(dataset_id="d", uri=uri))


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"\.xlsx are not known: allowed are \.jsonl, \.json, \.csv, \.parquet"):
        source(tmp_path / "rows.xlsx")


def test_inline_rows() -> None:
    config = DatasetConfig(dataset_id="d", rows=ROWS)
    assert inspect(locate(config)).rows == 20


@given(count=st.integers(2, 60), share=st.floats(0.01, 0.9))
def test_held_out_rows_and_the_others_are_the_whole(count: int, share: float) -> None:
    rows = [{"prompt": f"p{i // 2}", "completion": str(i)} for i in range(count)]
    found = DatasetSource(DatasetConfig(dataset_id="d", rows=rows, hold_out=share), None)
    held, trained = ([row for _, row in rows_of(found, name)] for name in ("d:held_out", "d"))
    assert sorted(held + trained, key=str) == sorted(rows, key=str)
    assert held
    assert not {row["prompt"] for row in held} & {row["prompt"] for row in trained}


def test_a_split_does_not_depend_on_the_order_of_the_rows() -> None:
    def held(rows: list[dict[str, Any]]) -> set[str]:
        config = DatasetConfig(dataset_id="d", rows=rows, hold_out=0.3)
        return {row["prompt"] for _, row in rows_of(DatasetSource(config, None), "d:held_out")}

    assert held(ROWS) == held(ROWS[::-1])


def test_overlap_is_by_prompt_and_blind_to_white_space() -> None:
    train = DatasetSource(DatasetConfig(dataset_id="t", rows=ROWS), None)
    asked = [{"question": "q  3 é ", "answer": "x"}, {"question": "other", "answer": "y"}]
    other = DatasetSource(
        DatasetConfig.model_validate({"dataset_id": "o", "purpose": "eval/question-answer", "rows": asked}), None
    )
    assert overlap((train, "t"), (other, "o"), DatasetFormat.DIALOG) == [(1, 4)]


def test_overlap_is_with_every_prompt_whose_answer_is_learned() -> None:
    first = [{"role": "user", "content": "Capital of France?"}, {"role": "assistant", "content": "Paris"}]
    more = [{"role": "user", "content": "And Italy?"}, {"role": "assistant", "content": "Rome"}]
    thanks = [{"role": "user", "content": "thanks"}]
    asked = [{"prompt": "Capital of France?", "completion": "Paris"}]
    judged = (DatasetSource(DatasetConfig(dataset_id="o", rows=asked), None), "o")

    def found(turns: list[dict[str, str]], learned: DatasetFormat) -> list[tuple[int, int]]:
        source = DatasetSource(DatasetConfig(dataset_id="t", rows=[{"messages": turns}]), None)
        return overlap((source, "t"), judged, learned)

    assert found(first + more, DatasetFormat.DIALOG) == [(1, 1)]
    assert found(first + more, DatasetFormat.INSTRUCT) == [], "its first answer is not learned"
    assert found(first + thanks, DatasetFormat.INSTRUCT) == [(1, 1)], "what follows the last answer asks nothing"
    assert found([first[0], {**first[1], "weight": 0}, *more], DatasetFormat.DIALOG) == []


def test_rows_that_hold_messages_and_a_preference_are_of_both_kinds() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    worse = [turns[0], {"role": "assistant", "content": "What?"}]
    row = {"prompt": "Hi", "messages": turns, "chosen": turns, "rejected": worse, "score_chosen": 8.0}
    facts = inspect(DatasetSource(DatasetConfig(dataset_id="u", rows=[row]), None))
    assert (facts.preferences, facts.pairs) == (0, 1)
    assert facts.unread == {"prompt": 1, "chosen": 1, "rejected": 1, "score_chosen": 1}
    assert facts.unread_of_pairs == {"messages": 1, "score_chosen": 1}
    assert [turn["content"] for turn in preference_row(row).chosen.messages] == ["Hi", "Hello"]


def test_rows_that_expect_no_answer_are_counted() -> None:
    user, assistant = ({"role": role, "content": "x"} for role in ("user", "assistant"))
    rows = [{"messages": [user, assistant]}, {"messages": [user, assistant, user]}, {"prompt": "a", "completion": "b"}]
    assert inspect(DatasetSource(DatasetConfig(dataset_id="d", rows=rows), None)).unanswered == 1
    asked = [{"question": "a", "answer": "b"}, {"prompt": "a", "kwargs": []}, {"question": "a", "kwargs": []}]
    config = {"dataset_id": "o", "purpose": "eval/question-answer", "rows": asked}
    assert inspect(DatasetSource(DatasetConfig.model_validate(config), None)).unanswered == 2
