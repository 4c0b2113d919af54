"""Models and tokenizers in and out of folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llsflow.errors import ModelError, UnavailableError
from llsflow.models.build import build
from llsflow.models.describe import describe_folder, tokenizer_digest
from llsflow.models.load import load_model, load_tokenizer, model_folder, save_folder, torch_dtype
from llsflow.schema.models import ModelInit
from tests.conftest import TWO_LAYERS

HELLO = [{"role": "user", "content": "hello"}]


def without_template(folder: Path) -> Path:
    (folder / "chat_template.jinja").unlink()
    return folder


def test_the_template_is_the_models_own_or_the_one_given(copied: Path, tmp_path: Path) -> None:
    def render(chat_template: str | None) -> object:
        return load_tokenizer(copied, chat_template).apply_chat_template(HELLO, tokenize=False)

    assert render(None) == "<|user|>hello<|end|>"
    assert render("{{ messages[0].content }}!") == "hello!"
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages[0].role }}?")
    assert render(str(file)) == "user?"
    without_template(copied)
    assert render("{{ messages[0].content }}!") == "hello!"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template: set model.chat_template"),
        ("no-such-file.jinja", "'no-such-file.jinja' is neither Jinja text nor a file"),
        ("a\n{% for m in messages %}", "not Jinja: line 2"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(copied: Path, template: str | None, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_tokenizer(without_template(copied), template)


def test_a_damaged_tokenizer_is_a_sentence(copied: Path) -> None:
    (copied / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"the tokenizer in .* cannot be loaded") as caught:
        load_tokenizer(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_dtype_and_eval_mode(tiny_folder: Path, name: str, kind: torch.dtype) -> None:
    model = load_model(tiny_folder, name)
    assert {p.dtype for p in model.parameters()} == {kind}
    assert not model.training


def test_unknown_dtype_lists_the_known() -> None:
    with pytest.raises(ModelError, match="'int3': allowed are fp32, bf16, fp16"):
        torch_dtype("int3")


def test_weights_with_holes_are_refused_not_made_up(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = copied / "model.safetensors"
    whole = load_file(file)
    save_file({k: v for k, v in whole.items() if "layers.1.mlp" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 3 tensors .* for example model\.layers\.1\.mlp\.down_proj"):
        load_model(copied)
    shrunk = {k: (v[:, :4].contiguous() if k == "lm_head.weight" else v) for k, v in whole.items()}
    save_file(shrunk, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        load_model(copied)


def test_an_architecture_nobody_knows_is_a_sentence(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "nosuch"}))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_model(copied)
    assert "\n" not in str(caught.value)


def test_code_of_the_model_is_not_run_unasked(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (copied / "config.json").write_text(json.dumps({**config, **own}))
    (copied / "own.py").write_text(f"open({str(copied / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match=r"set model\.trust_remote_code=true"):
        load_model(copied)
    assert not (copied / "ran").exists()


def test_a_hub_id_without_a_hub_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for load in (load_model, load_tokenizer):
        with pytest.raises(UnavailableError, match=r"no folder 'org/nosuch', and the .* hub does not answer") as caught:
            load("org/nosuch")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tied", [False, True])
def test_saved_folder_is_plain_and_in_the_precision_asked_for(tiny_folder: Path, tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**load_model(tiny_folder).config.to_dict(), "tie_word_embeddings": tied})
    model = LlamaForCausalLM(config)
    save_folder(model, load_tokenizer(tiny_folder), tmp_path / "m", "bf16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    facts = describe_folder(tmp_path / "m")
    assert (facts.dtype, facts.has_chat_template) == ("bf16", True)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.bfloat16)
    for (name, a), b in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a.bfloat16(), b), name
    assert tokenizer_digest(tmp_path / "m") == tokenizer_digest(tiny_folder)


def test_generation_config_ends_where_model_or_tokenizer_end(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(tiny_folder)
    model.generation_config.eos_token_id = [7, 9]
    model.generation_config.pad_token_id = None
    model.generation_config.temperature = 0.6  # do_sample is off: transformers alone refuses to save this
    save_folder(model, load_tokenizer(tiny_folder), tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert (saved["eos_token_id"], saved["pad_token_id"], saved["temperature"]) == ([1, 7, 9], 0, 0.6)
    assert model.generation_config.eos_token_id == [7, 9]


@pytest.mark.parametrize(("nested", "left_out"), [(False, ["*/*"]), (True, ["onnx/*", "openvino/*"])])
def test_a_rerankers_modules_are_downloaded_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool, left_out: list[str]
) -> None:
    """The hub is the machine's edge: what it is asked for is what counts."""
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot(hub_id: str, **settings: Any) -> str:
        asked.update(settings)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert model_folder("org/model", nested=nested) == tmp_path
    assert asked["ignore_patterns"] == left_out
    assert "*.json" in asked["allow_patterns"]


@pytest.mark.parametrize("hidden", [32, 64])
def test_four_bits_are_the_same_on_every_cpu(hidden: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes would pack weights on a CPU with AVX512-BF16, fail with 32 inputs, and give no gradient with 64."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    architecture = {**TWO_LAYERS, "hidden_size": hidden}
    build(ModelInit(architecture=architecture), 0, tmp_path / "model")
    ids = torch.arange(5)[None]
    plain = load_model(tmp_path / "model", quantized=True)(ids).logits
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    model = load_model(tmp_path / "model", quantized=True)
    assert {type(layer).__name__ for layer in model.modules()} >= {"Linear4bit"}
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model.train()(inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().sum() > 0
