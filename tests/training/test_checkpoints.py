"""Checkpoints: whole or not there at all."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_pruning_keeps_weights_and_the_newest_two_optimizers(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoints.save(tmp_path, step, write, STATE, {"epoch": 0, "metrics": {}})
        checkpoints.prune(tmp_path, None)
    found = checkpoints.find(tmp_path)
    assert [(checkpoint.step, checkpoint.resumable) for checkpoint in found] == [
        (1, False),
        (2, False),
        (3, False),
        (4, True),
        (5, True),
    ]
    assert [path.parent.name for path in sorted(tmp_path.rglob(checkpoints.STATE))] == [
        "step-00000004",
        "step-00000005",
    ]
    assert all((checkpoint.folder / "model.safetensors").read_bytes() == b"weights" for checkpoint in found)
    assert [checkpoint.created_at for checkpoint in found] == sorted(checkpoint.created_at for checkpoint in found)
    checkpoints.prune(tmp_path, 3)
    assert [checkpoint.step for checkpoint in checkpoints.find(tmp_path)] == [3, 4, 5]


def test_killed_between_forgetting_the_optimizer_and_removing_it(tmp_path: Path) -> None:
    import json

    saved = checkpoints.save(tmp_path, 1, write, STATE, {})
    facts = json.loads((saved.folder / checkpoints.FACTS).read_text())
    del facts["files"][checkpoints.STATE]
    (saved.folder / checkpoints.FACTS).write_text(json.dumps(facts))
    assert not checkpoints.find(tmp_path)[0].resumable
    for step in (2, 3):
        checkpoints.save(tmp_path, step, write, STATE, {})
    checkpoints.prune(tmp_path, None)
    assert not (saved.folder / checkpoints.STATE).exists()


def test_checkpoints_are_listed_without_torch(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "checkpoints", 3, write, STATE, {"epoch": 0, "metrics": {}})
    program = (
        "import sys; from pathlib import Path; from llsflow.steps.checkpoints import list_checkpoints;"
        f"print([c.path for c in list_checkpoints(Path({str(tmp_path)!r}))], 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "['checkpoints/step-00000003'] False\n"


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
