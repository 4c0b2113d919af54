"""Which linear layers of a decoder do what, told from the names and shapes of its weights: no torch, no peft."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llsflow.errors import ModelError
from llsflow.schema.training import LoraFinetuningConfig

LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+)\.weight$")
"""A weight within a numbered layer: `model.layers.0.self_attn.q_proj.weight`."""
ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
ROUTERS = ("gate", "router")
"""Leaves that choose experts: they are not part of the feed-forward itself."""
OUTPUT_PROJECTION = "output_proj"
"""What the spec's users (torchtune) call the layer after attention."""
OUTPUT_NAMES = ("o_proj", "out_proj", "c_proj", "dense", "wo")


@dataclass(frozen=True)
class Roles:
    """The linear layers within a decoder's layers, by what they do; paths below the layer, `self_attn.q_proj`."""

    attention: tuple[str, ...]
    mlp: tuple[str, ...]

    def attention_path(self, name: str) -> str | None:
        """Return the path of an attention layer by its name there, its path, or as `output_proj`."""
        if name == OUTPUT_PROJECTION and not any(_leaf(path) == name for path in self.attention):
            return next((path for path in self.attention if _leaf(path) in OUTPUT_NAMES), None)
        return next((path for path in self.attention if name in (path, _leaf(path))), None)

    def targets(self, config: LoraFinetuningConfig) -> list[str]:
        """Return what peft is to match the ends of module names with: those that get an adapter, and no others.

        Raises:
            ModelError: a name that is no attention layer here, or no feed-forward where one is asked for.
        """
        if mistakes := self.mistakes(config):
            raise ModelError("; ".join(mistakes))
        found = (self.attention_path(name) for name in config.lora_attn_modules)
        chosen = [path for path in found if path is not None]
        chosen += self.mlp if config.apply_lora_to_mlp else ()
        others = {_leaf(path) for path in (*self.attention, *self.mlp) if path not in chosen}
        # the shortest name that no other layer ends with
        return list(dict.fromkeys(path if _leaf(path) in others else _leaf(path) for path in chosen))

    def mistakes(self, config: LoraFinetuningConfig) -> list[str]:
        """Return what the config asks for that this model has not, each with what it has."""
        allowed = [_leaf(path) for path in self.attention]
        if any(name in OUTPUT_NAMES for name in allowed):
            allowed.append(OUTPUT_PROJECTION)
        found = []
        for name in config.lora_attn_modules:
            if self.attention_path(name) is None:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                found.append(f"lora_attn_modules: this model has no {name!r}, allowed: {', '.join(allowed)}{hint}")
        if config.apply_lora_to_mlp and not self.mlp:
            found.append("apply_lora_to_mlp: this model has no feed-forward of linear layers")
        return found


def adapter_parameters(shapes: Mapping[str, Sequence[int]], config: LoraFinetuningConfig) -> int:
    """Return how many numbers the adapters have: r·(i + o) for each layer of i inputs and o outputs.

    Source: LoRA (arXiv:2106.09685), equation 3: B is [o, r], A is [r, i].
    """
    targets = roles_of(shapes).targets(config)
    if config.apply_lora_to_output:
        targets.append("lm_head")
    ends = tuple(f".{target}.weight" for target in targets)
    return config.rank * sum(sum(shape) for name, shape in shapes.items() if f".{name}".endswith(ends))


def roles_of(shapes: Mapping[str, Sequence[int]]) -> Roles:
    """Return the linear layers of a decoder.

    Args:
        shapes: shape of each weight, by its name in the model.
    """
    attention: dict[str, None] = {}
    mlp: dict[str, None] = {}
    for name, shape in shapes.items():
        if (match := LAYER.search(name)) is None or len(shape) != 2:
            continue
        path = match[2]
        if ATTENTION.search(path):
            attention[path] = None
        elif _leaf(path) not in ROUTERS:
            mlp[path] = None
    return Roles(tuple(attention), tuple(mlp))


def llama_roles(model_type: str) -> Roles | None:
    """Return the roles of a llama-like architecture that is not built yet; None for another."""
    if model_type not in ("llama", "mistral", "qwen2", "qwen3"):
        return None
    attention = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    return Roles(attention, tuple(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")))


def _leaf(path: str) -> str:
    return path.rsplit(".", 1)[-1]
