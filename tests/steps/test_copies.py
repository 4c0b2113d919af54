"""The trained model's copy: whole, of the training it was asked for, and never over something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llsflow.errors import ConfigError
from llsflow.steps import copies


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_copy_in_a_new_and_in_an_empty_folder(model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for target in (tmp_path / "a" / "b", empty):
        copies.copy(model, target, "key")
        assert (target / "config.json").read_text() == "{}"
        assert [path.name for path in target.parent.iterdir() if path.name.startswith(".")] == []


def test_the_copy_of_the_same_training_is_left_alone(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    copies.copy(model, target, "key")
    (target / "notes.txt").write_text("mine")
    copies.copy(model, target, "key")
    assert (target / "notes.txt").read_text() == "mine"


def test_what_holds_something_else_is_refused_and_stays(model: Path, tmp_path: Path) -> None:
    other, file = tmp_path / "other", tmp_path / "file"
    copies.copy(model, other, "another key")
    file.write_text("text")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years")
    for target, sentence in (
        (other, "holds the model of another training"),
        (full, "holds something else: name a new folder"),
        (file, "is a file"),
        (file / "below", "is a file, or lies below one"),
    ):
        with pytest.raises(ConfigError, match=f"recipe.checkpoint_dir: .*{sentence}"):
            copies.check(target, "key")
        with pytest.raises(ConfigError):
            copies.copy(model, target, "key")
    assert (full / "thesis.txt").read_text() == "years"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="read-only"):
            copies.check(tmp_path / "copy", "key")
    finally:
        tmp_path.chmod(0o700)
