"""EfficiencyConfig: what is computed twice, moved away or shared out to save memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llsflow.errors import TrainingError
from llsflow.schema.training import EfficiencyConfig
from llsflow.training.examples import ExampleTable
from llsflow.training.weights import load_weights
from tests.training.fields.bench import Bench, case, refused, training_override
from tests.training.test_fit import inputs_of, recipe, rows


@case("EfficiencyConfig.enable_activation_checkpointing")
def enable_activation_checkpointing(bench: Bench) -> None:
    used = recipe(training={"efficiency_config": {"enable_activation_checkpointing": True}})
    assert kept_for_backward(bench, used) < 0.7 * kept_for_backward(bench, recipe())


def kept_for_backward(bench: Bench, used: Any) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, without the weights."""
    from llsflow.training.objectives import supervised

    model = load_weights(inputs_of(bench.model, used), None)
    held = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in held:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        supervised(model, ExampleTable(rows()).collate(np.arange(24)))
    return sum(kept.values())


@case("EfficiencyConfig.enable_activation_offloading")
def enable_activation_offloading(bench: Bench) -> None:
    if torch.cuda.is_available():
        return
    offloading = training_override("efficiency_config", "{enable_activation_offloading: true}")
    refused("enable_activation_offloading: .*no CUDA GPU", f"+{offloading}", "trainer=cpu")
    with pytest.raises(TrainingError, match="there is no CUDA GPU here: set it to false"):
        bench.run(training={"efficiency_config": {"enable_activation_offloading": True}})


@case("EfficiencyConfig.memory_efficient_fsdp_wrap")
def memory_efficient_fsdp_wrap(bench: Bench) -> None:
    """That the training stays the same is shown by test_devices.py."""
    wrapped = training_override("efficiency_config", "{memory_efficient_fsdp_wrap: true}")
    refused("set trainer.strategy=fsdp and trainer.devices", f"+{wrapped}")
    assert {"Embedding", "Linear"} <= sharded_units(bench.model, wrap=True) - sharded_units(bench.model, wrap=False)


def sharded_units(folder: Path, *, wrap: bool) -> set[str]:
    """Return the kinds of module that are gathered by themselves."""
    from torch.distributed.fsdp import FSDPModule

    from llsflow.models.load import load_model
    from llsflow.training.sharding import shard

    model = load_model(folder)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        shard(model, EfficiencyConfig(memory_efficient_fsdp_wrap=wrap), "cpu")
        return {type(m).__name__.removeprefix("FSDP") for m in model.modules() if isinstance(m, FSDPModule)}
    finally:
        torch.distributed.destroy_process_group()


@case("EfficiencyConfig.fsdp_cpu_offload")
def fsdp_cpu_offload(bench: Bench) -> None:
    offloaded = f"+{training_override('efficiency_config', '{fsdp_cpu_offload: true}')}"
    refused("set trainer.strategy=fsdp and trainer.devices", offloaded)
    if not torch.cuda.is_available():
        refused("no CUDA GPU", offloaded, "+trainer.strategy=fsdp", "trainer.devices=2")
