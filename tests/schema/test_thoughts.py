"""without_thoughts: reasoning anywhere in an answer is taken out, and what stands around it stays."""

from __future__ import annotations

import pytest

from llsflow.schema.thoughts import without_thoughts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris<think>y</think>", "Paris"),
        ("<think>x</think>Paris <think>y", "Paris"),
        ("Use <think>hi</think> now", "Use  now"),
        ("thoughts</think>\nParis", "Paris"),
        ("<think>x</think>y</think>Paris", "Paris"),
        (" <think>Paris", ""),
        ("<Think>x</THINK>\n\nParis", "Paris"),
        ("[THINK]x[/THINK]Paris", "Paris"),
        ("[think]x[/think]Paris", "Paris"),
        ("◁think▷x◁/think▷Paris", "Paris"),
        ("<analysis>x</analysis>Paris", "Paris"),
        ("<scratchpad>x</scratchpad>Paris", "Paris"),
        ("<think>I open <think> first</think>Paris", "Paris"),
        ("Paris <think>a <think>b</think> c</think>", "Paris"),
        ("<think>a [/THINK] b</think>Paris", "Paris"),
        ("<think>the `</think>` mark</think>Paris", "Paris"),
        ("Write `<think>` first", "Write `<think>` first"),
        (" no marks\n", " no marks\n"),
    ],
)
def test_reasoning_is_taken_out_wherever_it_stands(text: str, answer: str) -> None:
    assert without_thoughts(text) == answer
