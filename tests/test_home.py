"""LLSFLOW_HOME: whole files, locks between processes, refusals in words."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llsflow import home
from llsflow.errors import DataError, Stopped, StorageError

HOLDER = """
import sys
from llsflow import home
with home.locked("thing"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(llsflow_home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock `thing` until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_home_is_the_setting_or_outputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLSFLOW_HOME", "elsewhere")
    assert home.home() == tmp_path / "elsewhere"
    monkeypatch.delenv("LLSFLOW_HOME")
    assert home.home() == tmp_path / "outputs"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    home.write_json(path, {"old": 1})

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        home.write_json(path, {"new": 2})
    assert home.read_json(path) == {"old": 1}


def test_what_is_no_json_reads_as_absent(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ')
    assert home.read_json(tmp_path / "cut.json") is None
    assert home.read_json(tmp_path / "none.json") is None


def test_a_lock_is_waited_for(holder: subprocess.Popen[str]) -> None:
    asked: list[int] = []

    def stop_later() -> bool:
        asked.append(1)
        if len(asked) == 2:
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
        return False

    with home.locked("thing", stop=stop_later):
        assert len(asked) >= 2


def test_waiting_for_a_lock_can_be_stopped(holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(Stopped, match="stopped while waiting for another run of train"),
        home.locked("thing", waiting_for="another run of train", stop=lambda: True),
    ):
        raise AssertionError


def test_a_lock_dies_with_its_process(holder: subprocess.Popen[str]) -> None:
    with home.alone("thing") as alone:
        assert not alone
    holder.kill()
    holder.communicate()
    with home.alone("thing") as alone:
        assert alone


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "it is read-only for this user"),
        (errno.EACCES, "it is read-only for this user"),
        (errno.ENOTDIR, "a part of this path is a file"),
    ],
)
def test_refusals_of_the_system_are_sentences(tmp_path: Path, number: int, sentence: str) -> None:
    with (
        pytest.raises(StorageError, match=rf"cannot write to .*: {sentence}.*set LLSFLOW_HOME"),
        home.storage_errors(tmp_path),
    ):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "gone"), ValueError("ours"), DataError([])])
def test_other_errors_pass_unchanged(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, home.storage_errors(tmp_path):
        raise error
    assert caught.value is error


def test_digests_are_of_the_value_not_of_its_order() -> None:
    assert home.digest({"a": 1, "b": [2]}) == home.digest({"b": [2], "a": 1})
    assert home.digest({"a": 1}) != home.digest({"a": "1"})
    assert home.digest([1, 2]) != home.digest([2, 1])


def test_a_folder_of_a_step_is_found_before_and_after_it_is_done(tmp_path: Path) -> None:
    (home.home() / "work" / "train-1" / "checkpoints").mkdir(parents=True)
    assert home.of_step("train-1/checkpoints") == home.home() / "work" / "train-1" / "checkpoints"
    (home.home() / "steps").mkdir()
    (home.home() / "work" / "train-1").rename(home.home() / "steps" / "train-1")
    assert home.of_step("train-1/checkpoints") == home.home() / "steps" / "train-1" / "checkpoints"
    assert home.moved(home.home() / "work" / "train-1" / "checkpoints") == home.of_step("train-1/checkpoints")
    assert home.moved(home.home() / "work") is None
    assert home.moved(tmp_path) is None
    for elsewhere in ("train-2", str(tmp_path), "../..", "train-1/../../.."):
        assert home.of_step(elsewhere) is None
