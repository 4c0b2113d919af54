"""What this machine can do, told without torch: enough to refuse early, `fit` knows for certain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from llsflow.schema.experiment import Experiment

GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Where a driver for torch's CUDA devices is at work: NVIDIA's own, under WSL, AMD's."""


def may_have_cuda() -> bool:
    """Return whether torch may find a CUDA device here."""
    return sys.platform == "win32" or any(Path(file).exists() for file in GPU_FILES)


def machine_mistakes(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what the experiment asks of this machine that it surely has not."""
    trainer, recipe = experiment.trainer, experiment.recipe
    if recipe is None:
        return
    here = may_have_cuda()
    if trainer.accelerator == "cuda" and not here:
        yield ("trainer", "accelerator"), "there is no CUDA GPU here: set it to auto or cpu"
    if trainer.accelerator == "mps" and sys.platform != "darwin":
        yield ("trainer", "accelerator"), "Apple's GPU is on Apple's machines only: set it to auto or cpu"
    training = ("recipe", "training_config")
    gpu = here and trainer.accelerator in ("auto", "cuda")
    apple = sys.platform == "darwin" and trainer.accelerator in ("auto", "mps")
    if recipe.training_config.dtype == "fp16" and not (gpu or apple):
        yield (*training, "dtype"), "fp16 needs a GPU: set it to bf16 or fp32"
    efficiency = recipe.training_config.efficiency_config
    for field in ("enable_activation_offloading", "fsdp_cpu_offload"):
        if efficiency and getattr(efficiency, field) and not gpu:
            yield (
                (*training, "efficiency_config", field),
                "moves what a GPU holds to the machine's memory, and training here is on no CUDA GPU: set it to false",
            )
