"""Low-rank adapters by peft: put beside a model's weights, saved alone, merged into them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llsflow import home
from llsflow.errors import ModelError
from llsflow.models.describe import ADAPTER_CONFIG, adapter_base, is_adapter, locate
from llsflow.models.load import load_model, model_folder, torch_dtype
from llsflow.models.roles import roles_of
from llsflow.schema.training import LoraFinetuningConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def attach(model: PreTrainedModel, config: LoraFinetuningConfig) -> PeftModel:
    """Return the model with new adapters that do nothing yet; only they learn.

    Raises:
        ModelError: a module that the model has not.
    """
    from peft import LoraConfig, get_peft_model

    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    targets = roles_of(shapes).targets(config)
    if config.apply_lora_to_output:
        _untie(model)
        targets.append(_output_name(model))
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        use_dora=bool(config.use_dora),
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=_transposed(model, targets),
    )
    with _quiet():
        adapted: PeftModel = get_peft_model(model, lora)
    return adapted


def attach_saved(model: PreTrainedModel, folder: Path, *, trainable: bool, name: str = "default") -> PeftModel:
    """Return the model with the adapters of a folder, under a name.

    Raises:
        ModelError: the adapters are damaged, or belong to another model.
    """
    from peft import PeftModel

    if _output_name(model) in (home.read_json(folder / ADAPTER_CONFIG) or {}).get("target_modules", ()):
        _untie(model)
    with _quiet(), _told(folder):
        adapted: PeftModel = PeftModel.from_pretrained(
            model, str(folder), adapter_name=name, is_trainable=trainable, local_files_only=True
        )
    return adapted


def attach_another(adapted: PeftModel, folder: Path, name: str) -> None:
    """Put the adapters of a folder beside those that a model has, under a name of their own; they do nothing yet.

    Raises:
        ModelError: the adapters are damaged, or belong to another model.
    """
    with _quiet(), _told(folder):
        adapted.load_adapter(str(folder), adapter_name=name, local_files_only=True)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (ValueError, KeyError, OSError, RuntimeError, TypeError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0][:300]
        raise ModelError(f"the adapter in {str(folder)!r} cannot be loaded: {why}") from error


def load_merged(
    folder_or_id: str | Path,
    dtype: str = "fp32",
    *,
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return the model of a folder or hub id; an adapter's is its base with the adapter in its weights.

    The sum is made in fp32, whatever `dtype` is.

    Raises:
        ModelError: a folder that cannot be used, or an adapter whose base is not here.
        UnavailableError: a hub id that is not downloaded yet, and the hub does not answer.
    """
    folder = locate(str(folder_or_id), revision)
    if folder is None or not is_adapter(folder):
        return load_model(folder_or_id, dtype, device=device, revision=revision, trust_remote_code=trust_remote_code)
    base, base_revision = adapter_base(folder)
    model = load_model(
        model_folder(base, base_revision), "fp32", revision=base_revision, trust_remote_code=trust_remote_code
    )
    adapted: Any = attach_saved(model, folder, trainable=False)
    merged: Any = adapted.merge_and_unload()
    ready: PreTrainedModel = merged.to(device=torch.device(device), dtype=torch_dtype(dtype)).eval()
    return ready


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerFast, folder: Path, base: str, revision: str | None
) -> None:
    """Write the adapters alone, in peft's own format, and the tokenizer; the caller renames the folder into place.

    Args:
        model: with its adapters.
        tokenizer: saved beside them, with its chat template.
        folder: where to.
        base: folder or hub id of the model that they belong to.
        revision: of the hub id.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    with home.storage_errors(folder), _quiet():
        model.save_pretrained(str(folder), save_embedding_layers=False)
        tokenizer.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a model card, empty


def parameters_of(model: nn.Module) -> tuple[int, int]:
    """Return how many numbers a model has, and how many of them learn."""
    found = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(count for count, _ in found), sum(count for count, learns in found if learns)


def _output_name(model: Any) -> str:
    output = model.get_output_embeddings()
    return str(next(name for name, module in model.named_modules() if module is output))


def _untie(model: Any) -> None:
    """Give the output layer weights of its own: an adapter merged into shared ones would change the embedding too."""
    output = model.get_output_embeddings()
    if output.weight is model.get_input_embeddings().weight:
        output.weight = nn.Parameter(output.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _transposed(model: nn.Module, targets: list[str]) -> bool:
    """Return whether the layers hold their weights input first, as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    ends = tuple(f".{target}" for target in targets)
    return any(isinstance(module, Conv1D) for name, module in model.named_modules() if f".{name}".endswith(ends))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
