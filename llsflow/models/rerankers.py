"""What a reranker's folder holds, read from JSON and safetensors headers alone: no weights, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.errors import ModelError
from llsflow.models.describe import CAUSAL_LM, ModelFacts, context_length, read_header, read_object

CLASSIFIES = "ForSequenceClassification"
MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
OWN_MODULES = "sentence_transformers."
PICKLED = ("*.bin", "*.pt", "*.pth")


def is_cross_encoder(folder: Path) -> bool:
    """Return whether it reads query and item together; else it makes a vector of each.

    Source: config_sentence_transformers.json of sentence-transformers, or the architecture that config.json names.
    """
    settings = home.read_json(folder / SETTINGS)
    named = settings.get("model_type") if isinstance(settings, dict) else None
    if named or (folder / MODULES).is_file():
        return bool(named == "CrossEncoder")
    return any(name.endswith(CLASSIFIES) for name in _architectures(folder))


def describe_reranker(folder: Path, *, trust_remote_code: bool = False) -> ModelFacts:
    """Return the facts of a folder in Hugging Face's or sentence-transformers' format.

    Raises:
        ModelError: all that keeps the folder from being used.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no reranker's folder {str(folder)!r}")
    if mistakes := list(_mistakes(folder, trust_remote_code)):
        raise ModelError("; ".join(mistakes))
    config = _config(folder)
    tensors = [tensor for file in sorted(folder.rglob("*.safetensors")) for tensor in read_header(file)]
    decides = reranker_files(folder)
    digest = home.digest([[str(file.relative_to(folder)), home.cached_file_digest(file)] for file in decides])
    return ModelFacts(
        parameters=sum(tensor.numel for tensor in tensors),
        context_length=context_length(config),
        vocab_size=config.get("vocab_size"),
        hidden_size=config.get("hidden_size"),
        layers=config.get("num_hidden_layers"),
        model_type=str(config.get("model_type", "")),
        weights_digest=digest,
        tokenizer_digest=None,
        bytes=sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
        has_chat_template=False,
        dtype=None,
    )


def reranker_files(folder: Path) -> list[Path]:
    """Return the files that decide a reranker's scores."""
    patterns = ("*.json", "*.safetensors", "*.txt", "*.model", "*.py")
    return sorted(file for pattern in patterns for file in folder.rglob(pattern))


def _mistakes(folder: Path, trust_remote_code: bool) -> Iterator[str]:
    where = repr(str(folder))
    modules = home.read_json(folder / MODULES)
    if not any(folder.rglob("*.safetensors")):
        pickled = any(file for pattern in PICKLED for file in folder.rglob(pattern))
        why = ", only pickled weights, which can run code when opened: convert them with save_pretrained(FOLDER)"
        yield f"{where} holds no *.safetensors{why if pickled else ''}"
    if modules is None:
        if not (folder / "config.json").is_file():
            yield f"{where} holds no config.json and no {MODULES}: copy the whole folder"
        elif any(name.endswith(CAUSAL_LM) for name in _architectures(folder)):
            yield (
                f"{where} writes text and has no {MODULES} that says how it ranks: a reranker is a cross-encoder "
                f"(…{CLASSIFIES}) or an embedding model"
            )
        return
    kinds = [str(module.get("type")) for module in modules if isinstance(module, dict)]
    foreign = [kind for kind in kinds if not kind.startswith(OWN_MODULES)]
    if foreign and not trust_remote_code:
        yield f"{where} brings its own code ({', '.join(foreign)}): read it, then set model.trust_remote_code=true"


def _config(folder: Path) -> dict[str, Any]:
    """Return the transformer's config.json, which older folders have one below."""
    found = next(
        (file for file in (folder / "config.json", folder / "0_Transformer/config.json") if file.is_file()), None
    )
    return read_object(found) if found else {}


def _architectures(folder: Path) -> list[str]:
    return [str(name) for name in _config(folder).get("architectures") or []]
