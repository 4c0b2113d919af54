"""Training on several devices of this machine: this process takes the first, others, started here, the rest.

Every process trains the same way with its rank; only the first writes and tells.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from llsflow.errors import LlsflowError, TrainingError
from llsflow.training.inputs import FitInputs
from llsflow.training.sharding import ShardedStrategy

HOST = "127.0.0.1"
OTHER = "llsflow.training.other_device"
"""The program of the other devices' processes."""
PATIENCE_SECONDS = 30.0
"""How long the other devices may take to end once the first has."""


@dataclass(frozen=True)
class Device:
    """One of the devices that train together."""

    rank: int = 0
    world: int = 1
    port: int = 0
    """On which the first device waits for the others."""


class OneMachine(ClusterEnvironment):
    """Tells Lightning which device this is: its processes are started here, not by Lightning."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    creates_processes_externally = True
    main_address = HOST

    @property
    def main_port(self) -> int:
        """Where the first device waits."""
        return self.device.port

    @staticmethod
    def detect() -> bool:
        """Never by itself."""
        return False

    def world_size(self) -> int:
        """How many devices."""
        return self.device.world

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Which this is."""
        return self.device.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """Which this is, on this machine."""
        return self.device.rank

    def node_rank(self) -> int:
        """There is one machine."""
        return 0


def strategy(device: Device, inputs: FitInputs) -> Any:
    """Return Lightning's strategy: every device with its own rows, and with all weights or a share of them."""
    if device.world == 1:
        return "auto"
    settings: dict[str, Any] = {
        "cluster_environment": OneMachine(device),
        "process_group_backend": "nccl" if on_cuda(inputs) else "gloo",
    }
    if inputs.trainer.strategy == "fsdp":
        return ShardedStrategy(inputs.recipe.training_config.efficiency_config, **settings)
    return DDPStrategy(**settings)


def on_cuda(inputs: FitInputs) -> bool:
    """Return whether the training runs on CUDA GPUs."""
    return inputs.trainer.accelerator in ("auto", "cuda") and torch.cuda.is_available()


def share_cores(inputs: FitInputs) -> None:
    """Have the devices of a CPU share its cores, and a single one use as many threads as it was given."""
    threads, devices = inputs.trainer.num_threads, inputs.trainer.devices
    if threads is None and devices > 1 and not on_cuda(inputs):
        threads = max(1, torch.get_num_threads() // devices)
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def together(inputs: FitInputs, folder: Path) -> Iterator[Device]:
    """Start the other devices' processes, and yield this process's part; with it they end.

    Raises:
        TrainingError: another device failed, and why.
    """
    world = inputs.trainer.devices
    if world == 1:
        yield Device()
        return
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    others = [_Other(Device(rank, world, port), inputs, folder) for rank in range(1, world)]
    try:
        yield Device(0, world, port)
        for other in others:
            other.wait()
    except LlsflowError:
        raise
    except Exception as error:
        _explain(others, error)
        raise
    finally:
        for other in others:
            other.end()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _explain(others: Sequence[_Other], error: Exception) -> None:
    """Raise what another device failed with: this one only lost its answer."""
    for other in others:
        with suppress(subprocess.TimeoutExpired):
            other.process.wait(PATIENCE_SECONDS)
        if other.process.returncode:
            raise TrainingError(f"device {other.rank} failed: {other.last_words()}") from error


class _Other:
    """Another device's process."""

    def __init__(self, device: Device, inputs: FitInputs, folder: Path) -> None:
        self.rank = device.rank
        self.log = folder / f"device-{device.rank}.log"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", OTHER],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                process_group=0,  # a terminal's Ctrl-C is for the first process, which tells the others when to stop
            )
        assert self.process.stdin is not None  # noqa: S101 - a pipe was asked for
        with suppress(BrokenPipeError):  # it is gone already: told when it is missed
            self.process.stdin.write(pickle.dumps((device, inputs, folder)))
            self.process.stdin.flush()

    def wait(self) -> None:
        """Wait until it is done.

        Raises:
            TrainingError: it failed.
        """
        if self.process.wait(PATIENCE_SECONDS):
            raise TrainingError(f"device {self.rank} failed: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last line that it wrote."""
        lines = self.log.read_text("utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self.process.returncode}"

    def end(self) -> None:
        """Be sure that it is gone."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()  # it ends when its input does
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
