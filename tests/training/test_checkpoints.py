"""Checkpoints: whole or not there at all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llsflow.errors import StorageError
from llsflow.training import checkpoints

STATE = {"step": 1, "optimizer": torch.zeros(200_000)}


def write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 7, write, {"step": 7, "rng": torch.arange(3)}, {"epoch": 1, "metrics": {"loss": 0.5}})
    (found,) = checkpoints.find(tmp_path)
    assert (found.step, found.epoch, found.metrics) == (7, 1, {"loss": 0.5})
    assert checkpoints.load_state(found)["rng"].tolist() == [0, 1, 2]


def test_a_failing_write_leaves_nothing(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, write, STATE, {})

    def fail(folder: Path) -> None:
        write(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        checkpoints.save(tmp_path, 2, fail, STATE, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_state_is_data_never_code(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch /tmp/evil",)

    saved = checkpoints.save(tmp_path, 1, write, {"step": 1, "evil": Evil()}, {})
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load_state(saved)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if (
        os.geteuid() != 0
        or not Path(mount[0]).exists()
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["/usr/bin/umount", str(folder)], check=True)


def test_safetensors_word_for_a_full_disk_is_known(small_disk: Path) -> None:
    """It removes what it wrote, so that afterwards there is room again."""
    from safetensors.torch import save_file

    def write_weights(folder: Path) -> None:
        save_file({"weights": torch.zeros(1_000_000)}, folder / "model.safetensors")

    with pytest.raises(StorageError, match="the disk is full"):
        checkpoints.save(small_disk, 1, write_weights, STATE, {})
    assert not list(small_disk.iterdir())


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(small_disk: Path) -> None:
    checkpoints.save(small_disk, 1, write, STATE, {})
    checkpoints.save(small_disk, 2, write, STATE, {})
    with pytest.raises(StorageError, match="the disk is full: free some space, or set LLSFLOW_HOME"):
        checkpoints.save(small_disk, 3, write, STATE, {})
    assert checkpoints.find(small_disk)
    assert not list(small_disk.glob(".*"))
