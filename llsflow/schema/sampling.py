"""How the next token is chosen: the spec's SamplingParams."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llsflow.schema.base import PositiveInt, Record, Text


class GreedySamplingStrategy(Record):
    """The most probable token at each step."""

    type: Literal["greedy"] = "greedy"


class TopPSamplingStrategy(Record):
    """Sample from the smallest set of tokens whose probability reaches `top_p`."""

    type: Literal["top_p"] = "top_p"
    temperature: Annotated[float, Field(gt=0, le=100)]
    """Divides the logits; 1 leaves the model's own distribution."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    """Cumulative probability of the set that is kept; null keeps all."""


class TopKSamplingStrategy(Record):
    """Sample from the `top_k` most probable tokens."""

    type: Literal["top_k"] = "top_k"
    top_k: PositiveInt
    """How many tokens are kept."""


SamplingStrategy = Annotated[
    GreedySamplingStrategy | TopPSamplingStrategy | TopKSamplingStrategy, Field(discriminator="type")
]


class SamplingParams(Record):
    """How a generation is sampled, and where it ends."""

    strategy: SamplingStrategy = GreedySamplingStrategy()
    max_tokens: PositiveInt | None = None
    """Most tokens to generate; null: up to the model's context."""
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = 1.0
    """Divides the logits of tokens already seen (CTRL, arXiv:1909.05858, section 4.1); 1 changes nothing."""
    stop: Annotated[list[Text], Field(max_length=4)] | None = None
    """Up to 4 texts that end the generation; they are not part of it."""
