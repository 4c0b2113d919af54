"""Data sets of a hub, read from a server on this machine that plays it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llsflow.data.hub import HubAddress
from llsflow.errors import DataError
from tests.data.hub_site import hub

READ = """
import json, sys
from llsflow.data.hub import hub_rows
from llsflow.errors import DataError

for uri in sys.argv[1:]:
    problems = []
    try:
        found = [row for _, row in hub_rows(uri, problems, 60)]
    except DataError as error:
        found = str(error)
    print(json.dumps([found, [str(problem) for problem in problems]]))
"""


def card(**configs: Any) -> bytes:
    return f"---\n{json.dumps({'configs': [{'config_name': 'default', **configs}]})}\n---\n# A card\n".encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def read(endpoint: str, home: Path, uris: list[str], **environment: str) -> list[Any]:
    """Read in a process of its own: the library takes the hub's address when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *uris],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_of_the_hub_and_what_is_refused(tmp_path: Path) -> None:
    days = card(data_files=[{"split": "train", "path": "train.jsonl"}, {"split": "test", "path": "test.jsonl"}])
    repositories = {
        "org/days": {
            "README.md": days,
            "train.jsonl": b'{"prompt": "1 May", "completion": "1970-05-01"}\n{oops\n{"prompt": "007", "n": 1}\n',
            "test.jsonl": b'{"question": "q", "answer": "a"}\n',
        },
        "org/cells": {"x.csv": b"question,answer\n007,NA\n"},
        "org/plain": {"data.json": b'{"a": "1970-05-01"}\n{"b": 1}\n'},
        "org/typed": {"train.parquet": parquet([{"a": "1970-05-01", "n": 1}, {"a": None, "n": 2}])},
        "org/local": {"README.md": card(data_files=f"{tmp_path}/secret.csv"), "x.csv": b"a\n1\n"},
        "org/above": {"README.md": card(data_files="../../other@main/x.csv"), "x.csv": b"a\n1\n"},
        "org/web": {"README.md": card(data_files="http://127.0.0.1/x.csv"), "x.csv": b"a\n1\n"},
        "org/folder": {"README.md": card(data_dir="/etc"), "x.csv": b"a\n1\n"},
        "org/yaml": {".huggingface.yaml": b'configs: [{config_name: default, data_files: "/x.csv"}]', "x.csv": b"a\n1"},
        "org/settings": {"README.md": card(data_files="x.csv", sep=";"), "x.csv": b"a;b\n1;2\n"},
        "org/text": {"x.txt": b"some text"},
    }
    (tmp_path / "secret.csv").write_text("prompt,completion\na,b\n")
    base = "huggingface://datasets/org"
    outside = "outside its own repository: it is refused"
    wanted: dict[str, Any] = {
        f"{base}/days?split=train": [{"prompt": "1 May", "completion": "1970-05-01"}, {"prompt": "007", "n": 1}],
        f"{base}/days?split=test&revision=main&name=default": [{"question": "q", "answer": "a"}],
        f"{base}/cells": [{"question": "007", "answer": "NA"}],
        f"{base}/days": "names no split: allowed are test, train (?split=…)",
        f"{base}/days?split=dev": "has no split 'dev': allowed are test, train",
        f"{base}/days?split=train&name=other": "cannot be read from the hub: BuilderConfig 'other' not found",
        f"{base}/plain": [{"a": "1970-05-01"}, {"b": 1}],
        f"{base}/typed": [{"a": "1970-05-01", "n": 1}, {"a": None, "n": 2}],
        f"{base}/none": "cannot be read from the hub: 404 Client Error",
        f"{base}/local": outside,
        f"{base}/above": outside,
        f"{base}/web": outside,
        f"{base}/folder": outside,
        f"{base}/yaml": outside,
        f"{base}/settings": "its card sets sep for reading its files",
        f"{base}/text": "holds files that are read as text: allowed are arrow, csv, json, parquet",
    }
    with hub(repositories) as endpoint:
        found = read(endpoint, tmp_path / "hf", list(wanted))
    for (uri, expected), (rows, problems) in zip(wanted.items(), found, strict=True):
        if isinstance(expected, str):
            assert expected in rows, (uri, rows)
        else:
            assert rows == expected
        assert bool(problems) == uri.endswith("days?split=train")
    assert found[0][1] == [f"{base}/days?split=train train.jsonl:2: not JSON: Expecting property name enclosed in "
                           "double quotes at column 2"]  # fmt: skip


def test_a_hub_that_does_not_answer_is_told_in_a_sentence(tmp_path: Path) -> None:
    (found,) = read("http://127.0.0.1:9", tmp_path / "hf", ["huggingface://datasets/org/days?split=train"])
    assert "cannot be read from the hub: " in found[0]
    assert "Connection refused" in found[0]


def test_addresses() -> None:
    assert HubAddress.parse("huggingface://datasets/org/a.b-c_d/?split=train&name=x&revision=v1") == HubAddress(
        "org/a.b-c_d", "train", "x", "v1"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "huggingface://org/name",
        "huggingface://datasets/name",
        "huggingface://datasets/../name",
        "huggingface://datasets/org/name/file.csv",
        "huggingface://datasets/org/name?spilt=train",
        "huggingface://models/org/name",
        "huggingface://datasets/é/name",
    ],
)
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(DataError, match="is not understood: write huggingface://datasets/<org>/<name>"):
        HubAddress.parse(uri)
