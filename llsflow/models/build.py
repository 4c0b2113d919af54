"""A new model from its config: seeded random weights and, where none is given, a tokenizer over bytes."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llsflow.errors import ModelError
from llsflow.models.formula import SPECIAL_TOKENS, check_init
from llsflow.models.load import open_tokenizer, quiet, save_folder
from llsflow.schema.models import ModelInit

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('unknown role ' + message['role'] + ': allowed are system, user, assistant, tool') -}}
{%- endif -%}
{{- '<|' + ('user' if message['role'] == 'tool' else message['role']) + '|>' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

# Keys of a config.json that only say how the file came about.
PROVENANCE = ("architectures", "transformers_version", "_name_or_path")
# Older names that transformers still takes and turns into the new one.
OLDER_KEYS = ("rope_theta", "rope_scaling")


def build(init: ModelInit, seed: int, folder: Path) -> None:
    """Write a Hugging Face folder with weights drawn from `seed`, in fp32.

    Raises:
        ModelError: an unknown model_type, an unknown or impossible key, or a tokenizer that cannot be used.
    """
    mistakes = check_init(init)
    if mistakes:
        raise ModelError("\n".join(mistakes))
    quiet()
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    tokenizer = tokenizer_of(init)
    config = make_config(init.architecture, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = auto.from_config(config, dtype=torch.float32)
        except (ValueError, KeyError, RuntimeError, TypeError, ZeroDivisionError) as error:
            raise _impossible(init.architecture, error) from error
    save_folder(model.eval(), tokenizer, folder, "fp32")


def tokenizer_of(init: ModelInit) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a new model gets.

    Raises:
        ModelError: the folder that is named holds none.
    """
    return byte_tokenizer() if init.tokenizer == "bytes" else open_tokenizer(Path(init.tokenizer))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one id a byte after five chat marks; any text comes back exactly."""
    quiet()
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL_TOKENS, *_byte_names()]
    tokenizer = Tokenizer(models.BPE(vocab={name: n for n, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = [AddedToken(mark, special=True, normalized=False) for mark in SPECIAL_TOKENS]
    tokenizer.add_special_tokens(marks)
    pad, end, *roles = SPECIAL_TOKENS
    make: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=end,
        additional_special_tokens=roles,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_config(architecture: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """Return the transformers config of an architecture over a tokenizer.

    Raises:
        ModelError: every key that is unknown or impossible, in one message.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model_type = architecture["model_type"]
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        what = "is not a causal language model" if model_type in CONFIG_MAPPING else "is unknown"
        near = _near(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) or "allowed: llama, qwen3, mistral, gpt2, …"
        raise ModelError(f"model.init.architecture.model_type: {model_type!r} {what}; {near}")
    given = {k: v for k, v in architecture.items() if k != "model_type" and k not in PROVENANCE}
    kind = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map) | set(OLDER_KEYS)
    mistakes = [_unknown(model_type, key, known) for key in given if key not in known]
    mistakes += [
        f"model.init.architecture.{key}: new weights are always fp32: remove it"
        for key in ("dtype", "torch_dtype")
        if key in given
    ]
    if mistakes:
        raise ModelError("\n".join(dict.fromkeys(mistakes)))
    marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("pad", "bos", "eos")}
    try:
        return AutoConfig.for_model(model_type, **{"vocab_size": len(tokenizer), **marks, **given})
    except Exception as error:  # huggingface_hub's validation errors share no base but Exception
        raise _impossible(architecture, error) from error


def _byte_names() -> list[str]:
    """Return the printable name that ByteLevel gives each byte, in the order of the bytes.

    Source: GPT-2's byte encoder: printable bytes stand for themselves, the others count up from U+0100.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _unknown(model_type: str, key: str, known: set[str]) -> str:
    near = _near(key, known)
    return f"model.init.architecture.{key}: {model_type} has no such key" + (f"; {near}" if near else "")


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else ""


def _impossible(architecture: dict[str, Any], error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    # the validators put the reason on the last line, after "Validation error for …:"
    reason = lines[-1].rstrip(".") if lines else type(error).__name__
    if isinstance(error, KeyError):  # a value that was looked up in a table of names, and is all that the error tells
        keys = [key for key, value in architecture.items() if value == error.args[0]]
        reason = f"{', '.join(keys) or 'a key'}: unknown name {error.args[0]!r}"
    return ModelError(f"model.init.architecture: {architecture['model_type']} cannot be built: {reason}")
