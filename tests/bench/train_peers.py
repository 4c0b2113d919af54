"""The peers' trainings: plain PyTorch loops as the floor, and TRL; nothing of ours is imported here."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train_common import (
    BETA,
    IGNORED,
    LEARNING_RATE,
    MAX_TOKENS,
    Kind,
    Measured,
    Messages,
    Settings,
    answered,
    load_model,
    load_rows,
    token_ids,
)

ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True)
class _Encoded:
    """A conversation as token ids, and as labels: IGNORED up to the answer."""

    ids: list[int]
    labels: list[int]

    @classmethod
    def of(cls, tokenizer: Any, messages: Messages) -> _Encoded:
        ids = token_ids(tokenizer, messages)
        prompt = len(token_ids(tokenizer, messages[:-1])) + 1  # and the mark that begins the answer
        return cls(ids, [IGNORED] * prompt + ids[prompt:])


def raw(settings: Settings) -> Measured:
    """Train by a bare loop over length-sorted batches."""
    import torch

    tokenizer, model = load_model(settings)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    rows = [_Encoded.of(tokenizer, row["messages"]) for row in load_rows(settings, "sft")]
    began = settings.clock()
    rows.sort(key=lambda row: len(row.ids))
    for start in range(0, len(rows), settings.batch):
        inputs, mask, labels = _padded(rows[start : start + settings.batch])
        _step(model, optimizer, model(input_ids=inputs, attention_mask=mask, labels=labels).loss)
    seconds = settings.clock() - began
    return Measured(sum(len(row.ids) for row in rows), seconds)


def raw_dpo(settings: Settings) -> Measured:
    """Optimise preferences by a bare loop over length-sorted batches, which asks the reference in each step."""
    import torch
    from torch.nn import functional

    tokenizer, model = load_model(settings)
    reference = copy.deepcopy(model).eval()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    pairs = [
        [_Encoded.of(tokenizer, answered(row, answer)) for answer in ANSWERS] for row in load_rows(settings, "dpo")
    ]
    began = settings.clock()
    pairs.sort(key=lambda pair: max(len(row.ids) for row in pair))
    for start in range(0, len(pairs), settings.batch):
        batch = pairs[start : start + settings.batch]
        inputs, mask, labels = _padded([pair[which] for which in range(len(ANSWERS)) for pair in batch])
        with torch.no_grad():
            before = _log_probabilities(reference, inputs, mask, labels)
        chosen, rejected = (_log_probabilities(model, inputs, mask, labels) - before).chunk(2)
        _step(model, optimizer, -functional.logsigmoid(BETA * (chosen - rejected)).mean())
    seconds = settings.clock() - began
    return Measured(sum(len(row.ids) for pair in pairs for row in pair), seconds)


def _padded(rows: Sequence[_Encoded]) -> tuple[Any, Any, Any]:
    """Return ids, mask and labels of the rows, each [rows, longest], padded on the right."""
    import torch

    longest = max(len(row.ids) for row in rows)
    room = [longest - len(row.ids) for row in rows]
    pairs = list(zip(rows, room, strict=True))
    return (
        torch.tensor([row.ids + [0] * left for row, left in pairs]),
        torch.tensor([[1] * len(row.ids) + [0] * left for row, left in pairs]),
        torch.tensor([row.labels + [IGNORED] * left for row, left in pairs]),
    )


def _step(model: Any, optimizer: Any, loss: Any) -> None:
    import torch

    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _log_probabilities(model: Any, inputs: Any, mask: Any, labels: Any) -> Any:
    """Return the log-probability of each row's answer, [rows]."""
    from torch.nn import functional

    logits, targets = model(input_ids=inputs, attention_mask=mask).logits[:, :-1], labels[:, 1:]
    kept = targets != IGNORED
    found = logits.new_zeros(targets.shape)
    found[kept] = -functional.cross_entropy(logits[kept], targets[kept], reduction="none")
    return found.sum(1)


def trl_sft(settings: Settings) -> Measured:
    """Train by TRL's SFTTrainer with its own batching and its own loss: logits of 256 learned tokens at a time."""
    return _trl_sft(settings, {"per_device_train_batch_size": settings.batch})


def trl_nll(settings: Settings) -> Measured:
    """Train by TRL's SFTTrainer with the model's own loss, over the logits of every position."""
    return _trl_sft(settings, {"per_device_train_batch_size": settings.batch, "loss_type": "nll"})


def trl_packed(settings: Settings) -> Measured:
    """Train by TRL's SFTTrainer on sequences that it packed, one in a step.

    Its packing (best fit, decreasing) makes one sequence without a mask of which each row's positions begin at 0. TRL
    warns that this is for Flash Attention, which no CPU has; with transformers' sdpa the rows still do not see each
    other, as it makes a mask of all tokens by all tokens from such positions.
    """
    return _trl_sft(settings, {"per_device_train_batch_size": 1, "packing": True})


def _trl_sft(settings: Settings, how: dict[str, Any]) -> Measured:
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

    tokenizer, model = load_model(settings)
    rows = load_rows(settings, "sft")
    tokens = sum(len(token_ids(tokenizer, row["messages"])) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(assistant_only_loss=True, **_trl_settings(folder), **how)
        data = Dataset.from_list(rows)
        trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
        return _trl_train(settings, trainer, tokens)


def trl_dpo(settings: Settings) -> Measured:
    """Optimise preferences by TRL's DPOTrainer with its own batching, which asks the reference in each step."""
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from trl import DPOConfig, DPOTrainer  # type: ignore[import-not-found, unused-ignore]

    tokenizer, model = load_model(settings)
    rows = load_rows(settings, "dpo")
    pairs = [[answered(row, answer) for answer in ANSWERS] for row in rows]
    tokens = sum(len(token_ids(tokenizer, messages)) for pair in pairs for messages in pair)
    data = Dataset.from_list(
        [{"prompt": chosen[:1], "chosen": chosen[1:], "rejected": rejected[1:]} for chosen, rejected in pairs]
    )
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(beta=BETA, per_device_train_batch_size=settings.batch, **_trl_settings(folder))
        trainer = DPOTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
        return _trl_train(settings, trainer, tokens)


def _trl_settings(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_length": MAX_TOKENS,
        "num_train_epochs": 1,
        "report_to": [],
        "logging_steps": 10,
        "save_strategy": "no",
        "learning_rate": LEARNING_RATE,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
    }


def _trl_train(settings: Settings, trainer: Any, tokens: int) -> Measured:
    began = settings.clock()
    trainer.train()
    return Measured(tokens, settings.clock() - began, {"steps": trainer.state.global_step})


KINDS = {
    "raw": Kind(raw),
    "raw-dpo": Kind(raw_dpo),
    "trl-sft": Kind(trl_sft),
    "trl-packed": Kind(trl_packed),
    "trl-dpo": Kind(trl_dpo),
    "trl-large": Kind(trl_sft, model="large", steps=10),
    "trl-large-nll": Kind(
        lambda s: _trl_sft(s, {"per_device_train_batch_size": s.batch, "loss_type": "nll"}), model="large", steps=10
    ),
}
