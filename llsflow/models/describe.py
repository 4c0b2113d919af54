"""What a model folder holds, read from JSON and safetensors headers alone: no weights, no torch."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.errors import ModelError
from llsflow.models.formula import parameter_count, tokenizer_size
from llsflow.schema.models import ModelInit

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
TOKENIZER_FILES = (
    *TOKENIZERS,
    *("merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"),
    *("chat_template.jinja", "chat_template.json"),
)
CAUSAL_LM = ("ForCausalLM", "LMHeadModel")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
# Old checkpoints store these buffers beside the weights; the model computes them by itself.
BUFFERS = ("rotary_emb.inv_freq", ".masked_bias", ".attn.bias")
GENERATION_CONFIG = "generation_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DTYPES = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without loading it; None where it cannot be told."""

    parameters: int | None
    context_length: int | None
    """Tokens."""
    vocab_size: int | None
    hidden_size: int | None
    layers: int | None
    model_type: str
    weights_digest: str | None
    """sha256 over config.json and the weights; None for a model that is not built yet."""
    tokenizer_digest: str | None
    """sha256 over the tokenizer's files and the chat template."""
    bytes: int | None
    """Size of the weights on disk."""
    has_chat_template: bool
    dtype: str | None
    """fp32, bf16, fp16, or safetensors' own name: the type that most numbers have."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of each weight by its name; empty for a model that is not built yet."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as a safetensors header names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Return how many numbers it holds."""
        return math.prod(self.shape)


def describe_folder(path: Path) -> ModelFacts:
    """Return the facts of a Hugging Face model folder.

    Raises:
        ModelError: the folder is missing, or holds no causal language model that can be loaded.
    """
    config = read_config(path)
    files = weight_files(path)
    if not any((path / name).is_file() for name in TOKENIZERS):
        raise ModelError(f"{str(path)!r} holds no tokenizer: {_found(path)}; copy the model's tokenizer.json")
    base = path
    if is_adapter(path):  # its base's weights are its own as well
        base = _base_folder(path)
    tensors = [tensor for file in files for tensor in read_header(file)]
    # Code that comes with the model decides its answers as much as its weights do.
    code = sorted(base.glob("*.py")) if "auto_map" in config else []
    index = [base / INDEX] if (base / INDEX).is_file() and not (base / WEIGHTS).is_file() else []
    configs = [base / "config.json", *([path / ADAPTER_CONFIG] if base != path else [])]
    # the end marks stand there
    configs += [file for folder in dict.fromkeys((base, path)) if (file := folder / GENERATION_CONFIG).is_file()]
    text = config.get("text_config")
    sizes = {**text, **config} if isinstance(text, dict) else config
    return ModelFacts(
        parameters=_count(tensors, tied=config.get("tie_word_embeddings") is True),
        context_length=context_length(config),
        vocab_size=_first(sizes, ("vocab_size",)),
        hidden_size=_first(sizes, ("hidden_size", "n_embd", "d_model")),
        layers=_first(sizes, ("num_hidden_layers", "n_layer", "n_layers", "num_layers")),
        model_type=str(config.get("model_type", "")),
        weights_digest=_files_digest([*configs, *index, *files, *code]),
        tokenizer_digest=tokenizer_digest(path),
        bytes=sum(file.stat().st_size for file in files),
        has_chat_template=has_chat_template(path),
        dtype=_main_dtype(tensors),
        shapes={tensor.name: tensor.shape for tensor in tensors if ".lora_" not in tensor.name},
    )


def is_adapter(path: Path) -> bool:
    """Return whether the folder holds an adapter, not a whole model."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def adapter_base(path: Path) -> tuple[str, str | None]:
    """Return the folder or hub id of the model that an adapter belongs to, and its revision.

    Source: adapter_config.json of peft.

    Raises:
        ModelError: it does not say.
    """
    config = read_object(path / ADAPTER_CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{str(path / ADAPTER_CONFIG)!r} names no base_model_name_or_path: set it to the base model")
    return base, revision if isinstance(revision, str) else None


def _base_folder(path: Path) -> Path:
    base, revision = adapter_base(path)
    folder = locate(base, revision)
    if folder is None or is_adapter(folder):
        raise ModelError(
            f"{str(path)!r} is an adapter of {base!r}, which is not here: copy it, or set base_model_name_or_path in "
            f"{ADAPTER_CONFIG}"
        )
    return folder


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the tokens that a model of this config.json takes in all; None where it does not say."""
    text = config.get("text_config")
    return _first({**text, **config} if isinstance(text, dict) else config, CONTEXT_KEYS)


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model of this config.json has rows for in its embedding; None where it does not say."""
    text = config.get("text_config")
    return _first({**text, **config} if isinstance(text, dict) else config, ("vocab_size",))


def end_token_ids(path: Path) -> frozenset[int]:
    """Return the tokens that end a model's answers, as generation_config.json or else config.json names them.

    Raises:
        ModelError: there is no such folder, or it is no causal language model's.
    """
    config = read_config(path)
    folder = _base_folder(path) if is_adapter(path) else path
    generation = folder / GENERATION_CONFIG
    named = read_object(generation).get("eos_token_id") if generation.is_file() else None
    if named is None:
        named = config.get("eos_token_id")
    return frozenset(end for end in (named if isinstance(named, list) else [named]) if isinstance(end, int))


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json of a causal language model's folder.

    Raises:
        ModelError: there is no such folder, no config.json in it, or it is another kind of model.
    """
    if not path.exists():
        raise ModelError(f"there is no model folder {str(path)!r}{_near(path)}")
    if not path.is_dir():
        raise ModelError(
            f"{str(path)!r} is a file: a model is a folder with config.json, *.safetensors and tokenizer.json"
        )
    file = path / "config.json"
    if not file.is_file():
        if is_adapter(path):
            return read_config(_base_folder(path))
        raise ModelError(
            f"{str(path)!r} holds no config.json: {_found(path)}; "
            "a Hugging Face model folder has config.json, *.safetensors and tokenizer.json"
        )
    config = read_object(file)
    names = config.get("architectures") or []
    if names and not any(str(name).endswith(CAUSAL_LM) for name in names):
        raise ModelError(
            f"{str(file)!r} names {', '.join(map(str, names))}, not a causal language model: "
            "allowed are architectures that end in ForCausalLM or LMHeadModel"
        )
    return config


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files that make up the model, in the order that transformers looks for them.

    Raises:
        ModelError: there are none, a shard is missing, or there are only pickled weights.
    """
    if is_adapter(path):
        if not (path / ADAPTER_WEIGHTS).is_file():
            raise ModelError(f"{str(path)!r} holds {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}: copy it too")
        return [path / ADAPTER_WEIGHTS, *weight_files(_base_folder(path))]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        weight_map = read_object(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{str(path / INDEX)!r} has no weight_map: copy the file again")
        names = sorted(set(weight_map.values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise ModelError(
                f"{str(path)!r} lacks {len(missing)} of the {len(names)} weight files that {INDEX} names: "
                f"{_some(missing)}; copy them too"
            )
        return [path / name for name in names]
    pickled = sorted(f.name for pattern in ("*.bin", "*.pt", "*.pth") for f in path.glob(pattern))
    if pickled:
        raise ModelError(
            f"{str(path)!r} holds its weights only as pickle ({_some(pickled)}), which can run code when "
            "opened: convert them with model.save_pretrained(FOLDER), which writes safetensors"
        )
    raise ModelError(f"{str(path)!r} holds no {WEIGHTS} and no {INDEX}: {_found(path)}")


def read_header(file: Path) -> list[Tensor]:
    """Return the tensors that a safetensors file holds, without reading them.

    Source: the safetensors format (8 bytes little-endian header length, JSON header, data).

    Raises:
        ModelError: the file is cut off or is no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise ModelError(f"{str(file)!r} ({size:,} bytes) is cut off or not safetensors: copy it again")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        tensors = [Tensor(name, e["dtype"], tuple(e["shape"])) for name, e in entries.items()]
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{str(file)!r} has a damaged safetensors header: copy it again") from error
    if size != 8 + length + end:
        raise ModelError(
            f"{str(file)!r} is {'cut off' if size < 8 + length + end else 'damaged'}: its header promises "
            f"{8 + length + end:,} bytes, it has {size:,}; copy it again"
        )
    return tensors


def has_chat_template(path: Path) -> bool:
    """Return whether the tokenizer brings a chat template."""
    return bool(chat_templates(path))


def chat_templates(path: Path) -> list[str]:
    """Return the texts of a tokenizer's chat templates, of which there may be one for tools; none: it has none."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return [file.read_text("utf-8")]
    for name in ("chat_template.json", "tokenizer_config.json"):
        config = home.read_json(path / name) or {}
        match config.get("chat_template") if isinstance(config, dict) else None:
            case str(text) if text:
                return [text]
            case list(named):
                return [str(one.get("template")) for one in named if isinstance(one, dict)]
    return []


def tokenizer_digest(path: Path) -> str:
    """Return the sha256 over a folder's tokenizer files and chat template."""
    return _files_digest([path / name for name in TOKENIZER_FILES if (path / name).is_file()])


def locate(path: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model given as a folder or a hub id; None for a hub id that is not here yet.

    Raises:
        ModelError: there is no such folder, and it cannot be a hub id.
    """
    folder = Path(path).expanduser()
    if folder.exists():
        return folder
    if (elsewhere := home.moved(folder)) is not None:  # a checkpoint whose training has ended since it was named
        return elsewhere
    if not HUB_ID.fullmatch(path):
        raise ModelError(f"there is no model folder {path!r}{_near(folder)}; a hub id is written organisation/name")
    store = _hub_cache() / f"models--{path.replace('/', '--')}"
    ref = store / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    snapshot = store / "snapshots" / commit if commit else None
    return snapshot if snapshot and (snapshot / "config.json").is_file() else None


def describe_init(init: ModelInit) -> ModelFacts:
    """Return the facts of a model that is to be built; `parameters` is None where there is no formula.

    Raises:
        ModelError: the tokenizer's folder holds none.
    """
    architecture = init.architecture
    vocab = architecture.get("vocab_size") or tokenizer_size(init.tokenizer)
    shipped = init.tokenizer == "bytes"
    return ModelFacts(
        parameters=parameter_count(architecture, vocab),
        context_length=context_length(architecture),
        vocab_size=vocab,
        hidden_size=_first(architecture, ("hidden_size", "n_embd", "d_model")),
        layers=_first(architecture, ("num_hidden_layers", "n_layer", "n_layers", "num_layers")),
        model_type=str(architecture["model_type"]),
        weights_digest=None,
        tokenizer_digest=None if shipped else tokenizer_digest(Path(init.tokenizer)),
        bytes=None,
        has_chat_template=shipped or has_chat_template(Path(init.tokenizer)),
        dtype="fp32",
    )


def _count(tensors: Iterable[Tensor], *, tied: bool) -> int:
    stored = {tensor.name: tensor for tensor in tensors if not tensor.name.endswith(BUFFERS)}
    # Some folders store a tied output layer beside the embedding it shares its numbers with.
    if tied and any(name.endswith(("embed_tokens.weight", "wte.weight")) for name in stored):
        stored.pop("lm_head.weight", None)
    return sum(tensor.numel for tensor in stored.values())


def _main_dtype(tensors: Iterable[Tensor]) -> str | None:
    numbers: dict[str, int] = {}
    for tensor in tensors:
        numbers[tensor.dtype] = numbers.get(tensor.dtype, 0) + tensor.numel
    if not numbers:
        return None
    name = max(numbers, key=lambda dtype: numbers[dtype])
    return DTYPES.get(name, name.lower())


def _files_digest(files: Sequence[Path]) -> str:
    return home.digest([[file.name, home.cached_file_digest(file)] for file in files])


def _first(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)


def read_object(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ModelError: it holds something else.
    """
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelError(f"{str(file)!r} is not JSON ({error}): copy the file again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{str(file)!r} holds {type(value).__name__}, not an object: copy the file again")
    return value


def _hub_cache() -> Path:
    home_folder = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home_folder}/hub").expanduser()


def _near(path: Path) -> str:
    parent = path.expanduser().absolute().parent
    if not parent.is_dir():
        return f": the folder {str(parent)!r} is missing too"
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close:
        return f": did you mean {str(path.parent / close[0])!r}?"
    return f": {_found(parent, 'its parent has')}"


def _found(folder: Path, verb: str = "found") -> str:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return f"{verb} {_some(names) or 'nothing'}"


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
