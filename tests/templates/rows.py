"""Conversations drawn for a template: what it can write, in ordinary shapes."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from tests.templates import Structure

SENTENCE = "the red fox asks again and lazy dog answers yes or no to what is sunny in Paris today Où 🙂 x=1"
WORDS = SENTENCE.split()
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Looks up {name}.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
    for name in ("get_weather", "get_time")
]


def text(rng: random.Random) -> str:
    """Return some words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))


def row(structure: Structure, seed: int, *, reasoning: bool = True) -> dict[str, Any]:
    """Return a row of messages, with tools and reasoning where the template writes them."""
    structure = structure if reasoning else dataclasses.replace(structure, reasoning=False)
    rng = random.Random(f"{structure.name}/{seed}")  # noqa: S311 - conversations, not secrets
    messages: list[dict[str, Any]] = []
    if structure.system and rng.random() < 0.5:
        messages.append({"role": "system", "content": text(rng)})
    tools = structure.tools and rng.random() < 0.7
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": text(rng)})
        if tools and rng.random() < 0.6:
            messages += _calls(structure, rng, len(messages))
        messages.append(_answer(structure, rng))
    return {"messages": messages, "tools": TOOLS} if tools else {"messages": messages}


def _answer(structure: Structure, rng: random.Random) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant", "content": text(rng)}
    if structure.thoughts_opened:
        # a template that leaves thoughts out of a turn has them as part of its text
        answer["content"] = f"<think>\n{text(rng)}\n</think>\n\n{answer['content']}"
    elif structure.reasoning and rng.random() < 0.6:
        answer["reasoning_content"] = text(rng)
    return answer


def _calls(structure: Structure, rng: random.Random, number: int) -> list[dict[str, Any]]:
    count = 1 if structure.one_call else rng.randint(1, 2)
    calls = []
    for place in range(count):
        arguments = {"city": text(rng), **({"days": rng.randint(1, 9)} if rng.random() < 0.5 else {})}
        function = {"name": rng.choice(TOOLS)["function"]["name"], "arguments": arguments}
        calls.append({"id": f"call{number:04d}{place}", "type": "function", "function": function})
    turn: dict[str, Any] = {"role": "assistant", "tool_calls": calls}
    if structure.text_beside_calls and rng.random() < 0.5:
        turn["content"] = text(rng)
    if structure.reasoning and rng.random() < 0.5:
        turn["reasoning_content"] = text(rng)
    return [turn, *({"role": "tool", "tool_call_id": call["id"], "content": text(rng)} for call in calls)]
