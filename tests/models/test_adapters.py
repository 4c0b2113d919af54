"""Adapters: saved alone, found again, merged into exactly what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from llsflow.errors import ModelError
from llsflow.models.adapters import attach, attach_saved, load_merged, parameters_of, save_adapter
from llsflow.models.build import build
from llsflow.models.describe import describe_folder, is_adapter
from llsflow.models.load import load_model, load_tokenizer, save_folder
from llsflow.models.local import LocalModel
from llsflow.schema.models import ModelInit
from llsflow.schema.sampling import SamplingParams
from tests.models.small import ask
from tests.models.test_roles import lora

IDS = torch.arange(5, 25)[None]


@pytest.fixture(params=["untied", "tied"])
def base(request: pytest.FixtureRequest, tiny: dict[str, Any], tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    build(ModelInit(architecture={**tiny, "tie_word_embeddings": request.param == "tied"}), 0, folder)
    return folder


def trained(base: Path, **changes: Any) -> Any:
    """Return the model with adapters that do something."""
    every = {"lora_attn_modules": ["q_proj", "output_proj"], "apply_lora_to_mlp": True, "apply_lora_to_output": True}
    adapted = attach(load_model(base), lora(**{**every, **changes}))
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    return adapted.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def saved(base: Path, adapted: Any) -> Path:
    folder = base.parent / "adapter"
    save_adapter(adapted, load_tokenizer(base), folder, str(base), None)
    return folder


@pytest.mark.parametrize("use_dora", [False, True])
def test_merged_is_what_was_trained(base: Path, use_dora: bool) -> None:
    adapted = trained(base, use_dora=use_dora)
    folder = saved(base, adapted)
    assert is_adapter(folder)
    assert not (folder / "README.md").exists()
    wanted = logits(adapted)
    assert not torch.allclose(wanted, logits(load_model(base)), atol=1e-2), "the adapters do nothing"
    merged = load_merged(folder)
    torch.testing.assert_close(logits(merged), wanted, atol=1e-4, rtol=1e-4)
    whole = base.parent / "whole"
    whole.mkdir()
    save_folder(merged, load_tokenizer(folder), whole)
    torch.testing.assert_close(logits(load_model(whole)), wanted, atol=1e-4, rtol=1e-4)
    assert not list(whole.glob("adapter*"))


def test_new_adapters_change_nothing_and_only_they_learn(base: Path) -> None:
    adapted = attach(load_model(base), lora(apply_lora_to_mlp=True))
    assert torch.equal(logits(adapted.eval()), logits(load_model(base)))
    every, learning = parameters_of(adapted)
    assert 0 < learning < every / 3
    assert all(".lora_" in name for name, weight in adapted.named_parameters() if weight.requires_grad)


def test_adapters_go_on_where_they_were_saved(base: Path) -> None:
    adapted = trained(base)
    again = attach_saved(load_model(base), saved(base, adapted), trainable=True)
    mine = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    theirs = {name: weight for name, weight in again.named_parameters() if weight.requires_grad}
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in mine.items())


def test_an_adapters_folder_is_described_and_answers(base: Path) -> None:
    folder = saved(base, trained(base))
    facts, whole = describe_folder(folder), describe_folder(base)
    assert facts.context_length == whole.context_length
    assert facts.parameters is not None
    assert whole.parameters is not None
    assert facts.parameters > whole.parameters
    assert facts.weights_digest != whole.weights_digest
    assert facts.shapes == whole.shapes
    (answer,) = LocalModel.load(folder, device="cpu").generate(ask("hello"), SamplingParams(max_tokens=4), batch_size=1)
    assert answer.tokens >= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"base_model_name_or_path": "/nowhere"}, "there is no model folder '/nowhere'"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "org/not-here"}, "is an adapter of 'org/not-here', which is not here"),
    ],
)
def test_an_adapter_without_its_base_gets_a_sentence(base: Path, change: dict[str, Any], sentence: str) -> None:
    folder = saved(base, trained(base))
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=sentence):
        describe_folder(folder)


def test_damaged_adapters_get_a_sentence(base: Path) -> None:
    folder = saved(base, trained(base))
    weights = folder / "adapter_model.safetensors"
    shutil.copy(weights, base.parent / "kept")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_merged(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=r"but no adapter_model\.safetensors: copy it too"):
        describe_folder(folder)
