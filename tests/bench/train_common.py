"""What every measured training shares: its settings, the fixture's rows and model, and what it came to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IGNORED = -100
MAX_TOKENS = 1024
"""Most tokens of a row, and of a packed sequence; no row of the fixture has more."""
LEARNING_RATE = 1e-4
BETA = 0.1
"""Of preference optimisation."""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu: processor time, which other processes on the machine disturb far less; with one thread."""

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Settings:
    """What is trained, on how much and with what."""

    fixture: Path
    model: Path
    """Folder of the weights and the tokenizer."""
    batch: int
    """Rows (or pairs) of an optimizer step; beside steps it also says how many rows are taken, packed or not."""
    steps: int
    threads: int
    clock: Callable[[], float]


@dataclass(frozen=True)
class Measured:
    """What one training came to."""

    tokens: int
    """Real tokens, padding left out; of preferences both answers, each with its prompt."""
    seconds: float
    more: dict[str, float] = field(default_factory=dict)
    """Further numbers worth keeping."""


@dataclass(frozen=True)
class Kind:
    """A training that is measured."""

    train: Callable[[Settings], Measured]
    model: str = "model"
    """The model's folder in the fixture."""
    steps: int = 40
    """Optimizer steps, where the command line names no number."""


def load_rows(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return the first rows of one of the fixture's files: as many as the steps take, or all that there are."""
    lines = (settings.fixture / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[: settings.batch * settings.steps]]


def load_model(settings: Settings) -> tuple[Any, Any]:
    """Return the tokenizer and the model, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(settings.model), model


def token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Return a conversation's token ids."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def answered(row: dict[str, str], answer: str) -> Messages:
    """Return the conversation of a preference's prompt with its answer `chosen` or `rejected`."""
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[answer]}]
