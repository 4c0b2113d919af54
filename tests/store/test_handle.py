"""Opening a store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llsflow.errors import ConfigError, StorageError, UnavailableError
from llsflow.store import Batch, Store, encode_row

PROGRAM = """
import sys
from llsflow.store import *
print(sorted({"sqlalchemy", "alembic", "pydantic"} & set(sys.modules)))
with Store.open() as store:
    store.jobs.list()
print(sorted({"sqlalchemy", "alembic", "psycopg", "filelock"} & set(sys.modules)))
"""


def test_opening_is_light(llsflow_home: Path) -> None:
    Store.open().close()
    assert (llsflow_home / "store.db").exists()
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n['sqlalchemy']\n"


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_STORE_URL", f"sqlite:///{tmp_path}/elsewhere/my.db")
    with Store.open() as store:
        assert store.url_shown == f"sqlite:///{tmp_path}/elsewhere/my.db"
    assert (tmp_path / "elsewhere" / "my.db").exists()


def test_a_home_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b?c=%41#é"
    monkeypatch.setenv("LLSFLOW_HOME", str(folder))
    Store.open().close()
    assert (folder / "store.db").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is not a URL"),
        ("postgresql://u:hunter2@h:port/d", "is not a URL"),
        ("mysql://u:hunter2@h/d", "names the database 'mysql'"),
        ("sqlite+aiosqlite:////x/y", "names the database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file:x?mode=memory&uri=true", "names no file"),
    ],
)
def test_what_is_no_store_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Store.open(url)
    assert "allowed: sqlite:" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_server_that_is_not_there_is_told_without_its_password(scheme: str) -> None:
    with pytest.raises(UnavailableError) as refused:
        Store.open(f"{scheme}://u:hunter2@127.0.0.1:1/d?application_name=hunter2")
    text = str(refused.value)
    assert text.startswith("the store postgresql+psycopg://u:***@127.0.0.1:1/d does not answer: ")
    assert "hunter2" not in text
    assert refused.value.__suppress_context__


def test_postgresql_needs_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'llsflow\[postgres\]'"):
        Store.open("postgresql://u@h/d")


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("notes, not a database; " * 100)
    with pytest.raises(StorageError, match=r"notes.db is not a store, or is damaged"):
        Store.open(f"sqlite:///{path}")
    assert path.read_text().startswith("notes")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of this path is a file"):
        Store.open(f"sqlite:///{tmp_path}/file/store.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot write to"):
        Store.open(f"sqlite:///{tmp_path}/folder")


def test_open_twice_in_one_process(url: str) -> None:
    with Store.open(url) as one, Store.open(url) as two:
        with one.datasets.import_rows() as importing:
            importing.write(Batch([encode_row({"a": 1})]))
            importing.publish("d", "p", {}, {}, "llsflow")
        assert two.datasets.page("d", 0, 10).lines == [b'{"a":1}']


def test_a_forked_process_opens_its_own(url: str) -> None:
    with Store.open(url) as store:
        store.benchmarks.register("b", "d", ["f"], {})
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with Store.open(url) as own:
                    own.benchmarks.register("c", "d", ["f"], {})
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert [benchmark.benchmark_id for benchmark in store.benchmarks.list()] == ["b", "c"]
