"""Every field of the spec's training schemas: the table of docs/training.md is the list of cases.

A case shows what a field does to a real training (or to what is prepared or loaded for one), or the sentence with which
it is refused.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from llsflow.config import load_experiment
from llsflow.data.tokens import TokenSettings, tokenize
from llsflow.errors import ConfigError, DataError, LlsflowError, TrainingError
from llsflow.models.load import load_tokenizer
from llsflow.models.roles import llama_roles
from llsflow.plan import compile_plan
from llsflow.schema import training
from llsflow.schema.training import DatasetFormat, EfficiencyConfig, LoraFinetuningConfig, QATFinetuningConfig
from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import FitResult, step_plan
from llsflow.training.weights import load_weights
from tests.training.test_fit import inputs_of, recipe, rows, run, same, weights
from tests.training.test_preferences import optimise

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
FIELDS = re.findall(r"^\| `(\w+\.\w+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
RECORDS = (
    training.TrainingConfig,
    training.DataConfig,
    training.OptimizerConfig,
    training.EfficiencyConfig,
    training.LoraFinetuningConfig,
    training.QATFinetuningConfig,
    training.DPOAlignmentConfig,
)
LORA = {
    "type": "LoRA",
    "lora_attn_modules": ["q_proj"],
    "apply_lora_to_mlp": False,
    "apply_lora_to_output": False,
    "rank": 4,
    "alpha": 8,
}


@dataclass(frozen=True)
class Bench:
    """Where a case trains."""

    model: Path
    folder: Path

    def run(self, **changes: Any) -> FitResult:
        """Train two epochs on 24 rows, six optimizer steps each."""
        used = recipe(**changes)
        self.folder.mkdir(exist_ok=True)
        return run(self.folder / str(len(list(self.folder.iterdir()))), self.model, used)

    def lora(self, **changes: Any) -> Any:
        """Return the model with adapters, ready to be trained."""
        used = recipe(algorithm_config={**LORA, **changes})
        return load_weights(inputs_of(self.model, used), None)

    def adapted(self, **changes: Any) -> set[str]:
        """Return the layers that have an adapter."""
        names = (name for name, weight in self.lora(**changes).named_parameters() if weight.requires_grad)
        return {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names}

    def tokens(self, data_format: str = "instruct", *, train_on_input: bool = False) -> list[str]:
        """Return the texts that are learned of a conversation with two answers."""
        turns = [("user", "a."), ("assistant", "FIRST."), ("user", "b."), ("assistant", "LAST.")]
        row = {"messages": [{"role": role, "content": content} for role, content in turns]}
        tokenizer = load_tokenizer(self.model)
        settings = TokenSettings(DatasetFormat(data_format), train_on_input, 512, "refuse")
        table, _ = tokenize([(1, row)], "rows", tokenizer, settings)
        learned = table.input_ids[table.loss_mask]
        return re.findall("[A-Za-z]+", str(tokenizer.decode(learned.tolist(), skip_special_tokens=True)))


def losses(result: FitResult) -> list[float]:
    return [value for _, value in result.curves["train/loss"]]


def refused(match: str, *overrides: str) -> None:
    """Assert that the quickstart with these overrides is refused before anything starts."""
    with pytest.raises((ConfigError, DataError), match=match):
        compile_plan(load_experiment("quickstart", [*overrides]).experiment)


def training_override(field: str, value: Any) -> str:
    return f"recipe.training_config.{field}={value}"


def n_epochs(bench: Bench) -> None:
    assert bench.run(training={"n_epochs": 3}).steps == 18
    refused("n_epochs", training_override("n_epochs", 0))


def max_steps_per_epoch(bench: Bench) -> None:
    assert bench.run(training={"max_steps_per_epoch": 2}).steps == 4
    assert bench.run(training={"max_steps_per_epoch": -1}).steps == 12


def gradient_accumulation_steps(bench: Bench) -> None:
    once = bench.run(data={"batch_size": 8, "shuffle": False})
    twice = bench.run(data={"shuffle": False}, training={"gradient_accumulation_steps": 2})
    assert losses(once) == pytest.approx(losses(twice), rel=1e-4)


def max_validation_steps(bench: Bench) -> None:
    held_out = ExampleTable(rows(9, 1))

    def validated(most: int | None) -> float:
        used = recipe(training={"max_validation_steps": most, "max_steps_per_epoch": 1})
        result = run(bench.folder / str(most), bench.model, used, validation=held_out)
        return result.curves["val/loss"][0][1]

    every = validated(None)
    assert validated(0) == validated(-1) == every != validated(1)


def data_config(bench: Bench) -> None:
    assert recipe().training_config.data_config is not None
    refused("data_config=null: needed to train: it is null", training_override("data_config", "null"))


def optimizer_config(bench: Bench) -> None:
    assert recipe().training_config.optimizer_config is not None
    refused("optimizer_config=null: needed to train: it is null", training_override("optimizer_config", "null"))


def efficiency_config(bench: Bench) -> None:
    plain = bench.run()
    saved = bench.run(training={"efficiency_config": {"enable_activation_checkpointing": True}})
    assert same(weights(plain), weights(saved))


def dtype(bench: Bench) -> None:
    half = bench.run(training={"dtype": "bf16"})
    assert losses(half) != losses(bench.run())
    assert losses(bench.run(training={"dtype": None})) == losses(bench.run())
    if not torch.cuda.is_available():
        refused("fp16 needs a GPU", training_override("dtype", "fp16"), "trainer=cpu")
        with pytest.raises(TrainingError, match="fp16 needs a GPU"):
            bench.run(training={"dtype": "fp16"})


def dataset_id(bench: Bench) -> None:
    refused("no dataset 'none'", training_override("data_config.dataset_id", "none"))
    refused("prompt.chosen.rejected, for preference optimisation", "dataset=date_preferences", "benchmark=null")
    refused("20000 of the 20000 rows of 'iso_dates' are no preferences", "recipe=dpo_full")


def batch_size(bench: Bench) -> None:
    assert bench.run(data={"batch_size": 12}).steps == 4
    refused("batch_size", training_override("data_config.batch_size", 0))


def shuffle(bench: Bench) -> None:
    kept, mixed = (step_plan(rows().lengths, recipe(data={"shuffle": on}), 5) for on in (False, True))
    assert np.concatenate(kept.steps[0]).tolist() == [0, 1, 2, 3]
    assert np.concatenate(mixed.steps[0]).tolist() != np.concatenate(mixed.steps[6]).tolist()
    refused(
        "group_by_length=true: true needs shuffle: true",
        training_override("data_config.shuffle", "false"),
        "recipe.group_by_length=true",
    )


def data_format(bench: Bench) -> None:
    assert bench.tokens("instruct") == ["LAST"]
    assert bench.tokens("dialog") == ["FIRST", "LAST"]


def validation_dataset_id(bench: Bench) -> None:
    used, held_out = recipe(training={"max_steps_per_epoch": 1}), ExampleTable(rows(9, 1))
    assert "val/loss" in run(bench.folder / "with", bench.model, used, validation=held_out).curves
    assert "val/loss" not in run(bench.folder / "without", bench.model, used).curves
    refused("no dataset 'none'", training_override("data_config.validation_dataset_id", "none"))
    refused(
        "'iso_dates' holds no rows out", training_override("data_config.validation_dataset_id", "iso_dates:held_out")
    )


def packed(bench: Bench) -> None:
    full = bench.run(data={"packed": True, "batch_size": 1}, packed_length=64)
    assert full.steps < 2 * 24 / 2
    assert full.tokens == bench.run().tokens
    refused("packed", training_override("data_config.packed", "true"), "recipe.group_by_length=true")


def train_on_input(bench: Bench) -> None:
    assert bench.tokens("instruct", train_on_input=True) == ["a", "FIRST", "b", "LAST"]
    refused(
        "train_on_input=true: true is for kind: sft",
        "recipe=dpo_full",
        "dataset=date_preferences",
        training_override("data_config.train_on_input", "true"),
    )


def optimizer_type(bench: Bench) -> None:
    found = [losses(bench.run(optimizer={"optimizer_type": kind})) for kind in ("adam", "adamw", "sgd")]
    assert found[0] != found[1] != found[2]
    refused("did you mean 'adam'", training_override("optimizer_config.optimizer_type", "adamm"))


def lr(bench: Bench) -> None:
    result = bench.run(optimizer={"lr": 0.004, "num_warmup_steps": 0}, lr_schedule="constant")
    assert {value for _, value in result.curves["train/lr"]} == {0.004}
    refused("lr", training_override("optimizer_config.lr", 0))


def weight_decay(bench: Bench) -> None:
    def size(decay: float) -> float:
        trained = weights(bench.run(optimizer={"weight_decay": decay}))
        return sum(float(weight.norm()) for weight in trained.values() if weight.ndim > 1)

    assert size(5.0) < 0.9 * size(0.0)


def num_warmup_steps(bench: Bench) -> None:
    result = bench.run(optimizer={"lr": 0.01, "num_warmup_steps": 4}, lr_schedule="constant")
    assert [value for _, value in result.curves["train/lr"]][:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


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


def enable_activation_offloading(bench: Bench) -> None:
    if torch.cuda.is_available():
        return
    offloading = training_override("efficiency_config", "{enable_activation_offloading: true}")
    refused("enable_activation_offloading: .*no CUDA GPU", f"+{offloading}", "trainer=cpu")
    with pytest.raises(TrainingError, match="there is no CUDA GPU here: set it to false"):
        bench.run(training={"efficiency_config": {"enable_activation_offloading": True}})


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


def fsdp_cpu_offload(bench: Bench) -> None:
    offloaded = f"+{training_override('efficiency_config', '{fsdp_cpu_offload: true}')}"
    refused("set trainer.strategy=fsdp and trainer.devices", offloaded)
    if not torch.cuda.is_available():
        refused("no CUDA GPU", offloaded, "+trainer.strategy=fsdp", "trainer.devices=2")


def lora_type(bench: Bench) -> None:
    assert LoraFinetuningConfig.model_validate(LORA).type == "LoRA"
    refused("allowed", "+recipe.algorithm_config={type: lora}")


def lora_attn_modules(bench: Bench) -> None:
    assert bench.adapted(lora_attn_modules=["k_proj", "output_proj"]) == {"k_proj", "o_proj"}
    with pytest.raises(LlsflowError, match="no 'c_attn', allowed: q_proj, k_proj, v_proj, o_proj, output_proj"):
        bench.adapted(lora_attn_modules=["c_attn"])
    refused(
        "this model has no 'q_prj'.*did you mean 'q_proj'",
        "recipe=sft_lora",
        "recipe.algorithm_config.lora_attn_modules=[q_prj]",
    )
    refused(
        "nothing would learn",
        "recipe=sft_lora",
        "recipe.algorithm_config.lora_attn_modules=[]",
        "recipe.algorithm_config.apply_lora_to_mlp=false",
    )


def apply_lora_to_mlp(bench: Bench) -> None:
    roles = llama_roles("llama")
    assert roles is not None
    assert bench.adapted(apply_lora_to_mlp=True) == {"q_proj", "gate_proj", "up_proj", "down_proj"}


def apply_lora_to_output(bench: Bench) -> None:
    assert bench.adapted(apply_lora_to_output=True) == {"q_proj", "lm_head"}


def rank(bench: Bench) -> None:
    small, large = ({tuple(w.shape) for w in bench.lora(rank=r).parameters() if w.requires_grad} for r in (2, 5))
    assert {2 in shape for shape in small} == {5 in shape for shape in large} == {True}


def alpha(bench: Bench) -> None:
    def scale(value: int) -> float:
        module = next(m for m in bench.lora(alpha=value).modules() if hasattr(m, "lora_A"))
        return float(module.scaling["default"])

    assert (scale(8), scale(16)) == (2.0, 4.0)


def use_dora(bench: Bench) -> None:
    def magnitudes(**changes: Any) -> int:
        return sum("magnitude" in name for name, _ in bench.lora(**changes).named_parameters())

    assert magnitudes(use_dora=True) == 2
    assert magnitudes() == 0


def quantize_base(bench: Bench) -> None:
    model = bench.lora(quantize_base=True)
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    assert {str(w.dtype) for n, w in model.named_parameters() if n.endswith("up_proj.weight")} == {"torch.uint8"}
    learned = losses(
        bench.run(
            algorithm_config={**LORA, "apply_lora_to_mlp": True, "quantize_base": True}, training={"n_epochs": 20}
        )
    )
    assert sum(learned[-6:]) < 0.97 * sum(learned[:6])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        refused("needs bitsandbytes", "recipe=sft_lora", "recipe.algorithm_config.quantize_base=true")


def quantisation_aware(bench: Bench) -> None:
    config = QATFinetuningConfig(quantizer_name="int4_weight_only", group_size=32)
    with pytest.raises(ValidationError, match="QAT is not available: its result runs only in torchao's own format"):
        recipe(algorithm_config=config.model_dump())


def beta(bench: Bench) -> None:
    gentle, strict = (optimise(bench.folder / str(b), bench.model, beta=b) for b in (0.1, 10.0))
    assert gentle.curves["train/logp_rejected"] != strict.curves["train/logp_rejected"]
    assert gentle.curves["train/loss"][0][1] == pytest.approx(np.log(2), rel=1e-3)
    refused("beta", "recipe=dpo_full", "recipe.alignment_config.beta=0")
    refused("alignment_config: is for kind: dpo", "+recipe.alignment_config.beta=0.1")


def loss_type(bench: Bench) -> None:
    found = {
        name: optimise(bench.folder / name, bench.model, loss_type=name).curves["train/loss"][0][1]
        for name in ("sigmoid", "hinge", "ipo", "kto_pair")
    }
    # before the first step the policy is its reference: every ratio is 0, β is 0.1
    assert found == pytest.approx({"sigmoid": np.log(2), "hinge": 1.0, "ipo": 25.0, "kto_pair": 0.5}, rel=1e-3)


CASES: dict[str, Callable[[Bench], None]] = {
    **{
        f"TrainingConfig.{case.__name__}": case
        for case in (
            *(n_epochs, max_steps_per_epoch, gradient_accumulation_steps, max_validation_steps),
            *(data_config, optimizer_config, efficiency_config, dtype),
        )
    },
    **{
        f"DataConfig.{case.__name__}": case
        for case in (
            *(dataset_id, batch_size, shuffle, data_format, validation_dataset_id),
            *(packed, train_on_input),
        )
    },
    **{f"OptimizerConfig.{case.__name__}": case for case in (optimizer_type, lr, weight_decay, num_warmup_steps)},
    "EfficiencyConfig.enable_activation_checkpointing": enable_activation_checkpointing,
    "EfficiencyConfig.enable_activation_offloading": enable_activation_offloading,
    "EfficiencyConfig.memory_efficient_fsdp_wrap": memory_efficient_fsdp_wrap,
    "EfficiencyConfig.fsdp_cpu_offload": fsdp_cpu_offload,
    "LoraFinetuningConfig.type": lora_type,
    **{
        f"LoraFinetuningConfig.{case.__name__}": case
        for case in (
            *(lora_attn_modules, apply_lora_to_mlp, apply_lora_to_output),
            *(rank, alpha, use_dora, quantize_base),
        )
    },
    **{f"QATFinetuningConfig.{name}": quantisation_aware for name in QATFinetuningConfig.model_fields},
    "DPOAlignmentConfig.beta": beta,
    "DPOAlignmentConfig.loss_type": loss_type,
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_acts_or_is_refused(field: str, tiny_folder: Path, tmp_path: Path) -> None:
    CASES[field](Bench(tiny_folder, tmp_path / "runs"))


def test_the_table_has_every_field_of_the_spec_once() -> None:
    assert sorted(FIELDS) == sorted(f"{record.__name__}.{name}" for record in RECORDS for name in record.model_fields)
    assert len(set(FIELDS)) == len(FIELDS)
    assert set(CASES) == set(FIELDS)
