"""Small rerankers with random weights, in the formats that they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *("a", "the", "cat", "dog", "bird", "sat", "on", "mat", "river", "spree", "berlin", "paris", "capital"),
    *("of", "france", "letter", "lies", "is", "query", "document", ":"),
]
SIZES: dict[str, Any] = {
    **{"vocab_size": len(MARKS) + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 24, "max_position_embeddings": 32},
}


def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: place for place, word in enumerate([*MARKS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), MARKS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **marks)


def cross_encoder(folder: Path, **changes: Any) -> Path:
    """Write a model that reads query and item together, as Hugging Face's own classes save it."""
    return _save(folder, BertForSequenceClassification, {"num_labels": 1, **changes})


def encoder(folder: Path) -> Path:
    """Write a model that makes vectors, without a word on how they are pooled."""
    return _save(folder, BertModel, {})


def embedding_model(folder: Path, *, pooling: str = "cls", prompts: dict[str, str] | None = None) -> Path:
    """Write a model that makes vectors, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    reads = Transformer(str(encoder(folder.with_name(f"{folder.name}-encoder"))))
    pools = Pooling(SIZES["hidden_size"], pooling_mode=pooling)
    SentenceTransformer(modules=[reads, pools], device="cpu", prompts=prompts).save_pretrained(str(folder))
    return folder


def _save(folder: Path, kind: Any, changes: dict[str, Any]) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(BertConfig(**SIZES, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(20)  # scores of unlike items are far apart
    model.save_pretrained(str(folder))
    _tokenizer().save_pretrained(str(folder))
    return folder
