"""Models and tokenizers in and out of Hugging Face folders, quietly, and refused in a sentence."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llsflow import home
from llsflow.data.template import with_defaults
from llsflow.errors import ModelError, UnavailableError
from llsflow.models.describe import HUB_ID, locate, read_config, read_header, weight_files

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.py"]


def load_tokenizer(
    folder_or_id: str | Path,
    chat_template: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
    template_date: str | None = None,
    needs_template: bool = True,
) -> PreTrainedTokenizerFast:
    """Return the model's fast tokenizer with its chat template, or with `chat_template`: Jinja text or a file.

    Args:
        folder_or_id: where it is.
        chat_template: to use instead of its own.
        revision: of a hub id.
        trust_remote_code: whether its own Python code may run.
        chat_template_kwargs: the template's variables, unless a conversation has its own.
        template_date: the day that the template's `strftime_now` writes, as 2026-12-31; None: today.
        needs_template: False: rows of plain text are trained on without one, and whoever writes others refuses them.

    Raises:
        ModelError: there is no fast tokenizer, no template where one is needed, or the template is not Jinja or has no
            such variables.
        UnavailableError: a hub id that is not downloaded yet, and the hub does not answer.
    """
    folder = model_folder(folder_or_id, revision)
    tokenizer = open_tokenizer(folder, trust_remote_code)
    if chat_template is not None:
        tokenizer.chat_template = template_text(chat_template)
    if not tokenizer.chat_template:
        if not needs_template and not chat_template_kwargs:
            return tokenizer
        raise ModelError(
            f"the tokenizer in {str(folder)!r} has no chat template: set model.chat_template to Jinja text "
            "or to a file that holds it"
        )
    use_template_settings(tokenizer, chat_template_kwargs, template_date)
    return tokenizer


def use_template_settings(
    tokenizer: PreTrainedTokenizerFast, chat_template_kwargs: Mapping[str, Any], template_date: str | None
) -> None:
    """Check the tokenizer's chat template, or each of its templates, and set its variables and its day.

    Raises:
        ModelError: a template is not Jinja, or has no such variables.
    """
    given: Any = tokenizer.chat_template
    for text in [given] if isinstance(given, str) else given.values():
        _check_template(text)
    try:
        if isinstance(given, str):
            tokenizer.chat_template = with_defaults(given, chat_template_kwargs, template_date)
        else:
            named = {name: with_defaults(text, chat_template_kwargs, template_date) for name, text in given.items()}
            tokenizer.chat_template = named
    except ValueError as error:
        raise ModelError(f"model.{error}") from None


def open_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """Return a folder's fast tokenizer, with or without a chat template.

    Raises:
        ModelError: it cannot be read, or has no fast form.
    """
    quiet()
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # noqa: BLE001, RUF100 - tokenizers raises bare Exception for a damaged file
        why = first_line(error)
        raise ModelError(f"the tokenizer in {str(folder)!r} cannot be loaded: {why}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {str(folder)!r} has no fast form: add a tokenizer.json "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER) writes one where it can)"
        )
    for where in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(where, None)  # else how it was loaded is saved with it and changes its digest
    fast: PreTrainedTokenizerFast = tokenizer
    return fast


def template_text(chat_template: str) -> str:
    """Return the Jinja text that `chat_template` is or that the file of that name holds.

    Raises:
        ModelError: it is neither.
    """
    if "{" in chat_template or "\n" in chat_template:
        return chat_template
    file = Path(chat_template).expanduser()
    if not file.is_file():
        raise ModelError(f"model.chat_template: {chat_template!r} is neither Jinja text nor a file")
    return file.read_text("utf-8")


def load_model(
    folder_or_id: str | Path,
    dtype: str = "fp32",
    *,
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantized: bool = False,
) -> PreTrainedModel:
    """Return the causal language model of a folder or hub id, in eval mode, its weights in `dtype`.

    `quantized`: its linear layers hold their weights in 4 bits (NF4, arXiv:2305.14314) and compute in `dtype`.

    Raises:
        ModelError: no such folder, damaged or missing weights, an architecture transformers does not know.
        UnavailableError: a hub id that is not downloaded yet, and the hub does not answer.
    """
    quiet()
    folder = model_folder(folder_or_id, revision)
    read_config(folder)
    for file in weight_files(folder):
        read_header(file)
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        model, info = auto.from_pretrained(
            str(folder),
            dtype=torch_dtype(dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **(_four_bits(dtype, device) if quantized else {}),
        )
    except (ValueError, KeyError, OSError, RuntimeError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"the model in {str(folder)!r} brings its own code: read it, then set model.trust_remote_code=true"
            ) from error
        raise ModelError(f"the model in {str(folder)!r} cannot be loaded: {first_line(error)}") from error
    _refuse_holes(folder, info)
    if quantized:
        _keep_unpacked(model)
    ready: PreTrainedModel = model.eval() if quantized else model.to(device).eval()
    return ready


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Have 4-bit layers compute in the same way on every CPU.

    On CPUs with AVX512-BF16 bitsandbytes (0.50) packs a layer's weights anew at its first evaluation. It then fails
    where the inputs are no multiple of 64, computes in bf16 whatever the layer's type, and gives no gradient: what is
    trained after a validation would learn in its last layers alone.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _four_bits(dtype: str, device: str) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch_dtype(dtype),
    )
    return {"quantization_config": config, "device_map": {"": device}}


def save_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    dtype: str = "fp32",
    weights: dict[str, Any] | None = None,
) -> None:
    """Write a plain Hugging Face folder: safetensors in `dtype`, tokenizer, chat template, generation config.

    The model keeps its own precision; the folder is plain Hugging Face. The caller renames it into place. `weights`
    stand for the model's own where those are shared out over devices.
    """
    quiet()
    target = torch_dtype(dtype)
    own = model.generation_config
    model.generation_config = _generation_config(model, tokenizer)
    try:
        with home.storage_errors(folder):
            state = model.state_dict() if weights is None else weights
            cast = {name: x.to(target) if x.is_floating_point() else x for name, x in state.items()}
            model.save_pretrained(str(folder), state_dict=cast)
            tokenizer.save_pretrained(str(folder))
    finally:
        model.generation_config = own
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["dtype"] = DTYPES[dtype]  # transformers writes that of the model in memory
    home.write_json(folder / "config.json", config)


def model_folder(folder_or_id: str | Path, revision: str | None = None, *, nested: bool = False) -> Path:
    """Return the folder of a model; a hub id is downloaded when it is not there yet.

    `nested`: with the folders below it, in which rerankers keep their modules.

    Raises:
        ModelError: no such folder, or the hub has no such model.
        UnavailableError: the hub does not answer.
    """
    folder = locate(str(folder_or_id), revision)
    if folder is not None and not HUB_ID.fullmatch(str(folder_or_id)):
        return folder
    if folder is not None and Path(folder_or_id).exists():
        return folder
    return _download(str(folder_or_id), revision, nested=nested)


def torch_dtype(dtype: str) -> torch.dtype:
    """Return torch's type for fp32, bf16 or fp16.

    Raises:
        ModelError: another name.
    """
    import torch

    if dtype not in DTYPES:
        raise ModelError(f"unknown precision {dtype!r}: allowed are {', '.join(DTYPES)}")
    kind: torch.dtype = getattr(torch, DTYPES[dtype])
    return kind


def quiet() -> None:
    """Turn off telemetry, progress bars and chatter of the Hugging Face libraries; errors stay."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    import huggingface_hub.utils
    from transformers.utils import logging

    hub: Any = huggingface_hub.utils
    library: Any = logging
    hub.disable_progress_bars()
    library.disable_progress_bar()
    library.set_verbosity_error()


def _download(hub_id: str, revision: str | None, *, nested: bool) -> Path:
    quiet()
    import httpx
    from huggingface_hub import errors, snapshot_download

    where = f"{hub_id!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=MODEL_FILES,
            # copies of the weights for other runtimes, of which none is loaded here
            ignore_patterns=["onnx/*", "openvino/*"] if nested else ["*/*"],
        )
    except (errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(
            f"the hub has no model {where} for you, and there is no such folder: check the name, and "
            "HF_TOKEN if it is private or asks for consent"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise UnavailableError(
            f"there is no folder {where}, and the Hugging Face hub does not answer{offline}: "
            "set model.path to a folder, or try again with a network"
        ) from error
    return Path(folder)


def _check_template(text: str) -> None:
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(text)
    except TemplateSyntaxError as error:
        raise ModelError(f"the chat template is not Jinja: line {error.lineno}: {error.message}") from error


def _refuse_holes(folder: Path, info: dict[str, Any]) -> None:
    # transformers would fill them with random numbers and only warn
    for kind, sentence in (
        ("missing_keys", "lack {n} tensors that the architecture needs"),
        ("mismatched_keys", "have {n} tensors of another shape than config.json says"),
    ):
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get(kind) or ())
        if names:
            found = sentence.format(n=len(names))
            raise ModelError(
                f"the weights in {str(folder)!r} {found}, for example {names[0]}: config.json and weights do "
                "not belong together, copy the whole folder again"
            )


def _generation_config(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    config = copy.deepcopy(model.generation_config)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
    config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if any(getattr(config, name) not in (None, 1.0) for name in ("temperature", "top_p", "typical_p")):
        config.do_sample = True  # with it off transformers refuses to write the others
    return config


def first_line(error: Exception) -> str:
    """Return what a library's error says, shortened."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".:")[:300]
