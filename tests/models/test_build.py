"""New models: repeatable, plain Hugging Face folders, and a tokenizer that loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.errors import ModelError
from llsflow.models.build import build, byte_tokenizer
from llsflow.models.describe import describe_folder
from llsflow.models.formula import SPECIAL_TOKENS
from llsflow.schema.models import ModelInit

TOKENIZER = byte_tokenizer()
ROLES = st.sampled_from(["system", "user", "assistant"])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": st.text()}), min_size=1, max_size=5)


@settings(max_examples=200, derandomize=True)
@given(text=st.text())
def test_any_text_comes_back_exactly_a_byte_an_id(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    if not any(mark in text for mark in SPECIAL_TOKENS):
        assert ids == [byte + len(SPECIAL_TOKENS) for byte in text.encode()]


def test_every_byte_has_its_id_and_marks_stand_alone() -> None:
    assert len(TOKENIZER) == 261
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    text = "a <|end|> \n<|user|>"
    ids = TOKENIZER(text)["input_ids"]
    assert ids[2] == 1
    assert ids[-1] == 2
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "a  \n"
    assert (TOKENIZER.padding_side, TOKENIZER.eos_token, TOKENIZER.pad_token) == ("left", "<|end|>", "<|pad|>")


@settings(max_examples=50, derandomize=True)
@given(messages=MESSAGES)
def test_template_keeps_content_and_grows_by_suffixes(messages: list[dict[str, str]]) -> None:
    def render(turns: list[dict[str, str]], prompt: bool = False) -> str:
        return str(TOKENIZER.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))

    assert render(messages) == "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages)
    *before, last = messages
    if last["role"] == "assistant":
        prompt = render(before, prompt=True) if before else "<|assistant|>"
        assert render(messages) == prompt + last["content"] + "<|end|>"


def test_the_folder_loads_with_transformers_alone(tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert len(tokenizer) == model.config.vocab_size == 261
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1
    assert model.generation_config.pad_token_id == 0
    assert tokenizer.chat_template == TOKENIZER.chat_template
    assert tokenizer("é")["input_ids"] == TOKENIZER("é")["input_ids"]


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn(
    tiny: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    import torch

    init = ModelInit(architecture=tiny)
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    build(init, seed=0, folder=tmp_path / "same")
    build(init, seed=1, folder=tmp_path / "other")
    assert torch.equal(torch.random.get_rng_state(), state)
    digests = [describe_folder(f).weights_digest for f in (tiny_folder, tmp_path / "same", tmp_path / "other")]
    assert digests[0] == digests[1] != digests[2]


def test_a_tokenizer_folder_and_tied_weights_act(tiny: dict[str, Any], tiny_folder: Path, tmp_path: Path) -> None:
    a = {**tiny, "model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True, "vocab_size": 300}
    build(ModelInit(architecture=a, tokenizer=str(tiny_folder)), seed=0, folder=tmp_path / "m")
    facts = describe_folder(tmp_path / "m")
    assert facts.tokenizer_digest == describe_folder(tiny_folder).tokenizer_digest
    assert (facts.vocab_size, facts.model_type) == (300, "qwen3")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "lama"}, ["'lama' is unknown; did you mean llama"]),
        ({"model_type": "vit"}, ["'vit' is not a causal language model"]),
        ({"hiden_size": 8, "foo": 1}, ["hiden_size: llama has no such key; did you mean hidden_size", "foo:"]),
        ({"hidden_size": "x"}, ["hidden_size: found 'x', allowed: an integer"]),
        ({"hidden_act": "nosuch"}, ["llama cannot be built", "hidden_act", "nosuch"]),
        ({"rms_norm_eps": "x"}, ["llama cannot be built", "'rms_norm_eps' expected float"]),
        ({"dtype": "bfloat16"}, ["dtype: new weights are always fp32"]),
    ],
)
def test_what_cannot_be_built_is_told_in_sentences(
    tiny: dict[str, Any], tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        build(ModelInit(architecture={**tiny, **change}), seed=0, folder=tmp_path / "m")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_a_config_json_can_be_given_as_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    import json

    architecture = json.loads((tiny_folder / "config.json").read_text())
    del architecture["dtype"]
    build(ModelInit(architecture=architecture), seed=0, folder=tmp_path / "m")
    assert describe_folder(tmp_path / "m").weights_digest == describe_folder(tiny_folder).weights_digest
