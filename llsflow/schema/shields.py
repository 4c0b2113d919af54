"""Shields of conf/shield: what looks at what comes in and what goes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from llsflow.schema.agents import ViolationLevel
from llsflow.schema.base import Bool, Identifier, Record, Text
from llsflow.schema.services import BaseUrl, Variable

CATEGORY_CODE = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,39}$"
"""What stands for a category in an answer, where commas part one from the next."""

CategoryCode = Annotated[str, StringConstraints(pattern=CATEGORY_CODE)]


class Pattern(Record):
    """Text that is looked for."""

    pattern: Text
    """Regular expression, looked for anywhere, without regard to case unless it says `(?-i:…)`."""
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
    categories: dict[CategoryCode, Text] = {}
    """Category codes and what they are, for example S1: Violent Crimes; empty: the fourteen of Llama Guard 3."""
    own_template: Bool = False
    """Whether the chat template of the model writes Llama Guard's prompt around the conversation, as it does where a
    Llama Guard is served by vLLM or Ollama; false: the whole prompt goes to the model as a user's message."""

    @model_validator(mode="after")
    def _one_prompt(self) -> LlamaGuard:
        if self.own_template and self.categories:
            raise ValueError("categories: the model's own template has its own: remove them, or own_template: true")
        return self


class Moderation(Record):
    """A server with OpenAI's moderations endpoint."""

    type: Literal["moderation"] = "moderation"
    base_url: BaseUrl
    """Address as clients of the protocol write it, for example https://api.openai.com/v1."""
    model: Text | None = None
    """Its name there; null: the server's own choice."""
    api_key_env: Variable | None = None
    """Environment variable that holds the key."""
    categories: Annotated[list[Text], Field(min_length=1)] | None = None
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
