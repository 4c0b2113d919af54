"""Shields of conf/shield: what looks at what comes in and what goes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llsflow.schema.agents import ViolationLevel
from llsflow.schema.base import Bool, Identifier, Record, Text


class Pattern(Record):
    """Text that is looked for."""

    pattern: Text
    """Regular expression, looked for anywhere, without regard to case."""
    violation_level: ViolationLevel | None = None
    """null: the shield's."""
    user_message: Text | None = None
    """null: the shield's."""


class Patterns(Record):
    """A list of regular expressions."""

    type: Literal["patterns"] = "patterns"
    patterns: Annotated[list[Pattern], Field(min_length=1)]


class LlamaGuard(Record):
    """A model that judges conversations as Llama Guard 3 does: it answers `safe`, or `unsafe` and the categories."""

    type: Literal["llama_guard"] = "llama_guard"
    model: Identifier
    """A name in conf/model, or a checkpoint."""
    categories: dict[str, Text] = {}
    """Category codes and what they are, for example S1: Violent Crimes; empty: the fourteen of Llama Guard 3."""


class Moderation(Record):
    """A server with OpenAI's moderations endpoint."""

    type: Literal["moderation"] = "moderation"
    base_url: Text
    model: Text | None = None
    api_key_env: Text | None = None
    """Environment variable that holds the key."""
    categories: list[Text] | None = None
    """Those that count; null: all."""


class ShieldConfig(Record):
    """A shield: `conf/shield/<name>.yaml`."""

    shield_id: Identifier
    """What agents name."""
    provider: Annotated[Patterns | LlamaGuard | Moderation, Field(discriminator="type")]
    violation_level: ViolationLevel = ViolationLevel.ERROR
    """Of what it finds; only an error stops the turn."""
    user_message: Text = "I cannot help with that."
    """What the user is told instead of an answer."""
    hold_back: Bool = True
    """Whether an answer is held back until this shield has passed it; false: it streams at once, and what is found is
    told behind it."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A shield that does not answer in time stops the turn: what was not looked at does not go through."""
