"""Weights, gradients and optimizer shared out over the devices, each holding a part of every tensor (FSDP2).

Source: PyTorch FSDP, Zhao et al. 2023 (arXiv:2304.11277); torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from llsflow.schema.training import EfficiencyConfig

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Tensors as one device alone would have them."""


class ShardedStrategy(DDPStrategy):
    """Lightning's processes, with the model's weights shared out instead of copied."""

    def __init__(self, efficiency: EfficiencyConfig | None, **settings: Any) -> None:
        super().__init__(**settings)
        self.efficiency = efficiency or EfficiencyConfig()

    def configure_ddp(self) -> None:
        """Share out the weights; called once the model is on its device, before the optimizer is made."""
        module: Any = self.model
        shard(module.model, self.efficiency, self.root_device.type)


def shard(model: Any, efficiency: EfficiencyConfig, device: str) -> None:
    """Share out a model's weights, layer by layer, over all devices.

    Args:
        model: a Hugging Face causal language model, in place.
        efficiency: `memory_efficient_fsdp_wrap` has embedding and output layer gathered by themselves, so that never
            more than one of them or one layer is whole; `fsdp_cpu_offload` holds the shards in the machine's memory.
        device: cpu or cuda.
    """
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    offload = CPUOffloadPolicy() if efficiency.fsdp_cpu_offload else OffloadPolicy()
    units: list[nn.Module] = list(_layers(model))
    if efficiency.memory_efficient_fsdp_wrap:
        ends = [model.get_input_embeddings(), model.get_output_embeddings()]
        if ends[0].weight is ends[1].weight:  # shared weights belong to one unit
            fully_shard(ends, mesh=mesh, offload_policy=offload)
        else:
            units += ends
    for unit in units:
        fully_shard(unit, mesh=mesh, offload_policy=offload)
    fully_shard(model, mesh=mesh, offload_policy=offload)


def _layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder's layers: the list of modules with the most weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return max(lists, key=lambda found: sum(weight.numel() for weight in found.parameters()))


def is_sharded(model: nn.Module) -> bool:
    """Return whether the model's weights are shared out: then every device takes part in every pass forward."""
    return isinstance(model, FSDPModule)


@contextmanager
def gradients_stay(model: nn.Module) -> Iterator[None]:
    """While open, gradients are added up on their device and not exchanged."""
    assert isinstance(model, FSDPModule)  # noqa: S101 - the caller asked
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def whole(value: Tensor) -> Tensor:
    """Return a tensor as one device alone would have it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module) -> dict[str, Any] | None:
    """Return the weights gathered from all devices, on the first; None where each has them all."""
    return get_model_state_dict(model, options=WHOLE) if is_sharded(model) else None


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimizer's state, gathered from all devices where it is shared out."""
    if is_sharded(model):
        return get_optimizer_state_dict(model, optimizer, options=WHOLE)
    return optimizer.state_dict()


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Bring the optimizer to a state that `optimizer_state` gave."""
    if is_sharded(model):
        set_optimizer_state_dict(model, optimizer, optim_state_dict=state, options=WHOLE)
    else:
        optimizer.load_state_dict(state)
