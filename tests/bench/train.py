"""Supervised training on the fixture, in real (not padding) tokens per second: ours, and the peers.

    python tests/bench/train.py FIXTURE {llsflow|raw|trl-sft} [--batch 8 --steps 40 --threads 2 --clock wall]

`raw` is the floor: a plain PyTorch loop over length-sorted batches, no framework at all. All take the same rows in
fp32 with AdamW and clipping; the time runs from the first step to the end of the last, without writing weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

IGNORED = -100
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu: processor time, which other processes on the machine disturb far less; with one thread."""
Measured = tuple[int, float, dict[str, float]]
"""Real tokens, seconds of the steps, and numbers worth keeping."""


def llsflow(options: argparse.Namespace) -> Measured:
    """Train by llsflow.training.fit, as the train step of a plan does."""
    from llsflow.data.tokens import TokenSettings, tokenize
    from llsflow.models.load import load_tokenizer
    from llsflow.schema.training import DatasetFormat, Recipe, TrainerConfig
    from llsflow.training.fit import FitHooks, FitInputs, fit
    from llsflow.training.sft import StepReport

    recipe = Recipe.model_validate(
        {
            "kind": "sft",
            "lr_schedule": "constant",
            "group_by_length": True,  # as the bare loop, which sorts its rows
            "checkpoint_every_n_steps": 10**6,
            "training_config": {
                "n_epochs": 1,
                "max_steps_per_epoch": 0,
                "gradient_accumulation_steps": 1,
                "dtype": "fp32",
                "data_config": {
                    "dataset_id": "fixture",
                    "batch_size": options.batch,
                    "shuffle": True,
                    "data_format": "dialog",
                },
                "optimizer_config": {
                    "optimizer_type": "adamw",
                    "lr": 1e-4,
                    "weight_decay": 0.01,
                    "num_warmup_steps": 0,
                },
            },
        }
    )
    tokenizer = load_tokenizer(str(options.fixture / "model"))
    settings = TokenSettings(DatasetFormat.DIALOG, train_on_input=False, max_length=1024, overlong="refuse")
    table, facts = tokenize(list(enumerate(_rows(options), 1)), "sft.jsonl", tokenizer, settings)
    clock = CLOCKS[options.clock]
    ends: list[float] = []
    took: list[float] = []

    def on_step(report: StepReport, total: int) -> None:
        ends.append(clock())
        took.append(report.seconds)

    inputs = FitInputs(
        model=str(options.fixture / "model"),
        load={},
        tokenizer=tokenizer,
        train=table,
        validation=None,
        recipe=recipe,
        trainer=TrainerConfig(accelerator="cpu", num_threads=options.threads),
        seed=0,
    )
    began = clock()
    with tempfile.TemporaryDirectory() as folder:
        fit(inputs, Path(folder), FitHooks(on_step=on_step))
    whole = clock() - began
    # the first step's start is not told to hooks: its own report has its wall time, never less than its cpu time
    return facts.tokens, ends[-1] - ends[0] + took[0], {"fit_seconds": round(whole, 2), "steps": len(ends)}


def raw(options: argparse.Namespace) -> Measured:
    """Train by a bare loop over length-sorted batches."""
    import torch

    tokenizer, model = _model(options)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    encoded = []
    for row in _rows(options):
        ids = _ids(tokenizer, row["messages"])
        prompt = len(_ids(tokenizer, row["messages"][:-1])) + 1
        encoded.append((ids, [IGNORED] * prompt + ids[prompt:]))
    clock = CLOCKS[options.clock]
    began = clock()
    encoded.sort(key=lambda pair: len(pair[0]))
    for start in range(0, len(encoded), options.batch):
        batch = encoded[start : start + options.batch]
        longest = max(len(ids) for ids, _ in batch)
        inputs = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
        labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
        model(input_ids=inputs, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = clock() - began
    return sum(len(ids) for ids, _ in encoded), seconds, {}


def trl_sft(options: argparse.Namespace) -> Measured:
    """Train by TRL's SFTTrainer with its own batching."""
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

    tokenizer, model = _model(options)
    rows = _rows(options)
    tokens = sum(len(_ids(tokenizer, row["messages"])) for row in rows)
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_length=1024,
        assistant_only_loss=True,
        per_device_train_batch_size=options.batch,
        max_steps=len(rows) // options.batch,
        report_to=[],
        logging_steps=10,
        save_strategy="no",
        learning_rate=1e-4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    clock = CLOCKS[options.clock]
    began = clock()
    trainer.train()
    return tokens, clock() - began, {}


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    lines = (options.fixture / "sft.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[: options.batch * options.steps]]


def _model(options: argparse.Namespace) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = options.fixture / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), model


def _ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


KINDS = {"llsflow": llsflow, "raw": raw, "trl-sft": trl_sft}


def main() -> None:
    """Measure one kind and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixture", type=Path)
    parser.add_argument("kind", choices=KINDS)
    for name, default in (("batch", 8), ("steps", 40), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokens, seconds, more = KINDS[options.kind](options)
    print(json.dumps({"rate": tokens / seconds, "seconds": round(seconds, 2), "tokens": tokens, **more}))


if __name__ == "__main__":
    main()
