"""Where the rows of a registration come from: every kind of address, and those that are refused."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from llsflow.data.sources import open_source
from llsflow.errors import DataError, Mistake
from llsflow.schema.datasets import RowsDataSource, URIDataSource
from llsflow.schema.server import FetchConfig, ServerConfig
from tests.data.site import answer, site

ROWS: list[dict[str, Any]] = [{"a": "1", "b": 'é, "x"'}, {"a": "2", "b": ""}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = 'a,b\n1,"é, ""x"""\n2,\n'
NO_ROOTS = ServerConfig()


def rows(uri: str, server: ServerConfig = NO_ROOTS) -> list[dict[str, Any]]:
    problems: list[Mistake] = []
    with open_source(URIDataSource(uri=uri), server, problems) as source:
        found = [row for _, row in source.rows]
    assert not problems
    return found


def test_inline_rows_have_numbers_and_no_limit_of_their_own() -> None:
    with open_source(RowsDataSource(rows=ROWS), NO_ROOTS, []) as source:
        assert list(source.rows) == list(enumerate(ROWS, 1))
        assert (source.where(2), source.max_bytes) == ("row 2", None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text/csv", CSV),
        ("csv", CSV),
        ("TEXT/CSV;charset=utf-8", CSV),
        ("application/json", json.dumps(ROWS)),
        ("json", json.dumps(ROWS)),
        ("jsonl", LINES),
        ("application/x-ndjson", LINES),
    ],
)
def test_data_addresses(kind: str, text: str) -> None:
    assert rows(f"data:{kind},{quote(text)}") == ROWS
    assert rows(f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}") == ROWS
    assert rows(f"data:{kind};base64,{quote(base64.b64encode(gzip.compress(text.encode())).decode())}") == ROWS


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("data:text/html,x", "data:text/html: is not understood: write data:TYPE"),
        ("data:,x", "is not understood"),
        ("data:csv", "is not understood"),
        ("data:csv;base64,a", "data:csv;base64: is not base64"),
    ],
)
def test_data_addresses_that_are_refused(uri: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        rows(uri)


def test_lsfs_is_what_lies_below_the_home(llsflow_home: Path, tmp_path: Path) -> None:
    (llsflow_home / "mine").mkdir(parents=True)
    (llsflow_home / "mine" / "rows.jsonl").write_text(LINES)
    assert rows("lsfs://mine/rows.jsonl") == rows("lsfs:///mine/rows.jsonl") == ROWS
    secret = tmp_path / "secret.jsonl"
    secret.write_text(LINES)
    (llsflow_home / "link.jsonl").symlink_to(secret)
    (llsflow_home / "inner.jsonl").symlink_to(llsflow_home / "mine" / "rows.jsonl")
    assert rows("lsfs://inner.jsonl") == ROWS
    for path in ("../secret.jsonl", "mine/../../secret.jsonl", "link.jsonl", "a\x00.jsonl"):
        with pytest.raises(DataError, match="leaves LLSFLOW_HOME"):
            rows(f"lsfs://{path}")
    for path, sentence in (("mine", "is a folder"), ("gone.jsonl", "there is no such file"), ("store.db", "no such")):
        with pytest.raises(DataError, match=sentence):
            rows(f"lsfs://{path}")


def test_paths_are_read_from_the_configured_folders_only(tmp_path: Path) -> None:
    root, other = tmp_path / "data", tmp_path / "other"
    for folder in (root, other):
        folder.mkdir()
        (folder / "rows.jsonl").write_text(LINES)
    (root / "link.jsonl").symlink_to(other / "rows.jsonl")
    server = ServerConfig(data_roots=[str(root)])
    assert rows(str(root / "rows.jsonl"), server) == rows("rows.jsonl", server) == ROWS
    for path in (other / "rows.jsonl", root / "link.jsonl", root / ".." / "other" / "rows.jsonl", "/etc/passwd"):
        with pytest.raises(DataError, match=r"is read from the folders of server.data_roots only: is in none of these"):
            rows(str(path), server)
    with pytest.raises(DataError, match=r"server.data_roots names no folder"):
        rows(str(root / "rows.jsonl"))


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("file:///etc/passwd", "files of the server are not open to registration as file://; allowed are https"),
        ("conf://dataset/iso_dates/train.csv", "is in the catalogue already"),
        ("store://d", "its rows are registered already"),
        ("s3://bucket/x.csv", "s3: is not among the addresses that can be read; allowed are https"),
        ("FILE:///etc/passwd", "not open to registration"),
    ],
)
def test_other_addresses_are_refused(uri: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        rows(uri)


def test_a_download_is_known_by_its_name_or_its_type() -> None:
    server = ServerConfig(fetch=FetchConfig(allow_hosts=["127.0.0.1"]))
    pages = {
        "/rows.jsonl?signature=s3cret": answer(200, LINES.encode(), Content_Type="text/plain"),
        "/rows.csv.gz": answer(200, gzip.compress(CSV.encode()), Content_Type="application/octet-stream"),
        "/export": answer(200, CSV.encode(), Content_Type="text/csv; charset=utf-8"),
        "/moved.jsonl": answer(302, Location="/export"),
        "/html": answer(200, b"<html>", Content_Type="text/html"),
        "/bad.jsonl?signature=s3cret": answer(200, b"<html>"),
    }
    with site(pages) as port:
        base = f"http://127.0.0.1:{port}"
        for path in ("/rows.jsonl?signature=s3cret", "/rows.csv.gz", "/export"):
            assert rows(base + path, server) == ROWS
        with pytest.raises(DataError, match=r"/html: neither its name nor its content type \(text/html\)"):
            rows(f"{base}/html", server)
        problems: list[Mistake] = []
        with open_source(URIDataSource(uri=f"{base}/bad.jsonl?signature=s3cret"), server, problems) as source:
            assert not list(source.rows)
        assert problems[0].where == "http://127.0.0.1/bad.jsonl:1"


def test_what_is_unpacked_has_a_limit(llsflow_home: Path) -> None:
    llsflow_home.mkdir()
    (llsflow_home / "bomb.jsonl.gz").write_bytes(gzip.compress(b'{"a": "1"}\n' * 100_000))
    with pytest.raises(DataError, match=r"lsfs://bomb.jsonl.gz: is over 1,000 bytes when unpacked"):
        rows("lsfs://bomb.jsonl.gz", ServerConfig(fetch=FetchConfig(max_bytes=1000)))
