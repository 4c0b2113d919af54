"""How an agent's messages and tools are written so that its endpoint takes them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llsflow.agents.prompts import native
from llsflow.schema.inference import ToolDef, ToolPromptFormat
from llsflow.schema.models import ToolImages

LONGEST_NAME = 64
_TAKEN_EVERYWHERE = re.compile(rf"[A-Za-z_][A-Za-z0-9_-]{{0,{LONGEST_NAME - 1}}}")
"""Names of functions that every server takes.

Source: platform.openai.com/docs/api-reference/chat/create, tools.function.name; Gemini's begin with no digit.
"""

NO_ANSWER = "[no answer]"
"""Stands for an answer without a text and a call, which strict servers refuse in a history."""
NO_OUTPUT = "The tool returned nothing."
"""Stands for an empty answer of a tool, which they refuse too."""


@dataclass(frozen=True)
class Sending:
    """How messages are written for one model."""

    form: ToolPromptFormat | None = None
    """How calls stand in the text; null: the protocol carries them."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Tools that have another name at the endpoint, by their own."""
    is_strict: bool = True
    """Whether the server is another's, which may refuse what is empty, or a name."""
    images: ToolImages = "described"

    def name(self, tool: str) -> str:
        """Return what a tool is called at the endpoint; it may be one that is not there."""
        return self.names.get(tool) or (taken_name(tool) if self.is_strict else tool)

    def tools(self, offered: Sequence[ToolDef]) -> list[dict[str, Any]]:
        """Return tools as the protocol has them."""
        found = native(offered)
        for one in found:
            function = one["function"]
            function["name"] = self.name(function["name"])
            # an object without `properties` is refused by OpenAI
            if function["parameters"].get("type", "object") == "object":
                function["parameters"] = {"type": "object", "properties": {}, **function["parameters"]}
        return found


def names_at_endpoint(names: Iterable[str]) -> dict[str, str]:
    """Return those tools that have another name at an endpoint, by their own: no two have the same."""
    every = list(names)
    used = {name for name in every if _TAKEN_EVERYWHERE.fullmatch(name)}
    found: dict[str, str] = {}
    for name in every:
        if name in used or name in found:
            continue
        sent = taken_name(name)
        if sent in used:
            sent = _marked(sent, name)
        used.add(sent)
        found[name] = sent
    return found


def taken_name(name: str) -> str:
    """Return a name with what servers refuse replaced."""
    if _TAKEN_EVERYWHERE.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    sent = re.sub(r"[^A-Za-z0-9_-]+", "_", plain)
    if not re.match(r"[A-Za-z_]", sent):
        sent = f"_{sent}"
    return sent if len(sent) <= LONGEST_NAME else _marked(sent, name)


def _marked(sent: str, name: str) -> str:
    """Return a name that no other tool gets: with digits of its own name's digest behind it."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{sent[: LONGEST_NAME - 9]}_{digest}"
