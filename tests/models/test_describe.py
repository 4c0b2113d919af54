"""Model folders read without torch: exact facts, and one sentence for each folder that is none."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llsflow import home
from llsflow.errors import ModelError
from llsflow.models.describe import describe_folder, describe_init, locate, read_header
from llsflow.schema.models import ModelInit


def edit(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_facts_are_exact(tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    facts = describe_folder(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.context_length, facts.vocab_size, facts.hidden_size, facts.layers) == (96, 261, 32, 2)
    assert (facts.model_type, facts.dtype, facts.has_chat_template) == ("llama", "fp32", True)
    assert facts.bytes == (tiny_folder / "model.safetensors").stat().st_size


def test_what_is_to_be_built_is_described_as_what_is_built(tiny: dict[str, Any], tiny_folder: Path) -> None:
    planned, built = describe_init(ModelInit(architecture=tiny)), describe_folder(tiny_folder)
    for name in ("parameters", "context_length", "vocab_size", "hidden_size", "layers", "model_type", "dtype"):
        assert getattr(planned, name) == getattr(built, name), name
    assert planned.weights_digest is None


def test_shards_and_tied_weights_are_counted_once(tiny: dict[str, Any], tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {k: v for k, v in tiny.items() if k != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=300, tie_word_embeddings=True)).bfloat16()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "tokenizer.json").write_text("{}")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    facts = describe_folder(tmp_path)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.dtype == "bf16"
    assert not facts.has_chat_template
    shards[1].unlink()
    with pytest.raises(ModelError, match=rf"lacks 1 of the {len(shards)} weight files.*{shards[1].name}"):
        describe_folder(tmp_path)


def test_tied_output_that_is_stored_all_the_same_is_not_counted_twice(copied: Path) -> None:
    untied = describe_folder(copied).parameters
    edit(copied / "config.json", tie_word_embeddings=True)
    assert untied is not None
    assert describe_folder(copied).parameters == untied - 261 * 32


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10_000) + b"{}")


def cut_data(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def garbled_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"\xff{}}" + b"0" * 50)


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def encoder(folder: Path) -> None:
    edit(folder / "config.json", architectures=["BertForMaskedLM"])


def half_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def bad_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_config, "holds no config.json: found chat_template.jinja, generation_config.json"),
        (no_weights, "holds no model.safetensors and no model.safetensors.index.json: found"),
        (pickled, "only as pickle (pytorch_model.bin), which can run code"),
        (cut_header, "(10 bytes) is cut off or not safetensors: copy it again"),
        (cut_data, "is cut off: its header promises"),
        (empty_weights, "(0 bytes) is cut off"),
        (garbled_header, "damaged safetensors header"),
        (no_tokenizer, "holds no tokenizer"),
        (adapter, "names no base_model_name_or_path"),
        (encoder, "names BertForMaskedLM, not a causal language model"),
        (half_config, "is not JSON"),
        (bad_index, "has no weight_map"),
    ],
)
def test_a_folder_that_holds_no_model_gets_a_sentence(copied: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(copied)
    with pytest.raises(ModelError) as caught:
        describe_folder(copied)
    assert words in str(caught.value)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_names_the_nearest(copied: Path) -> None:
    with pytest.raises(ModelError, match=r"did you mean '.*copied'"):
        describe_folder(copied.with_name("copid"))
    with pytest.raises(ModelError, match="its parent has copied"):
        describe_folder(copied.with_name("zzz"))
    with pytest.raises(ModelError, match="is missing too"):
        describe_folder(copied / "a" / "b")
    with pytest.raises(ModelError, match="is a file"):
        describe_folder(copied / "config.json")


def test_digests_follow_the_content_of_their_own_files(copied: Path) -> None:
    before = describe_folder(copied)
    (copied / "README.md").write_text("no part of the model")
    assert describe_folder(copied) == before
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    template = describe_folder(copied)
    assert template.weights_digest == before.weights_digest
    assert template.tokenizer_digest != before.tokenizer_digest
    edit(copied / "config.json", rms_norm_eps=0.5)
    changed = describe_folder(copied)
    assert changed.weights_digest != before.weights_digest
    edit(copied / "generation_config.json", eos_token_id=[1, 2])
    assert describe_folder(copied).weights_digest != changed.weights_digest


def test_code_that_comes_with_the_model_is_part_of_it(copied: Path) -> None:
    edit(copied / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    (copied / "own.py").write_text("a = 1")
    before = describe_folder(copied).weights_digest
    (copied / "own.py").write_text("a = 2")
    assert describe_folder(copied).weights_digest != before


def test_big_files_are_hashed_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real = home.file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(home, "file_digest", counted)
    file = tmp_path / "big"
    file.write_bytes(b"a" * (1 << 20))
    first = home.cached_file_digest(file)
    assert home.cached_file_digest(file) == first == real(file)
    assert hashed == [file]
    file.write_bytes(b"b" * (1 << 20))
    assert home.cached_file_digest(file) == real(file) != first
    assert hashed == [file, file]


def test_an_unwritable_cache_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path / "file"))
    big = tmp_path / "big"
    big.write_bytes(b"a" * (1 << 20))
    assert home.cached_file_digest(big) == home.file_digest(big)


def test_locate_finds_folders_and_downloaded_models(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert locate(str(copied)) == copied
    assert locate("org/name") is None
    store = tmp_path / "hub" / "models--org--name"
    shutil.copytree(copied, store / "snapshots" / "abc123")
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("abc123")
    assert locate("org/name") == locate("org/name", "abc123") == store / "snapshots" / "abc123"
    assert locate("org/name", "v2") is None
    with pytest.raises(ModelError, match="there is no model folder"):
        locate("./org/name")


def test_read_header_gives_names_types_and_shapes(tiny_folder: Path) -> None:
    tensors = {tensor.name: tensor for tensor in read_header(tiny_folder / "model.safetensors")}
    assert tensors["model.embed_tokens.weight"].shape == (261, 32)
    assert {tensor.dtype for tensor in tensors.values()} == {"F32"}


def test_nothing_heavy_is_imported(tiny_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llsflow.models.describe import describe_folder;"
        f"describe_folder(Path({str(tiny_folder)!r}));"
        "print(sorted({'torch','transformers','tokenizers','safetensors','numpy','jinja2'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
