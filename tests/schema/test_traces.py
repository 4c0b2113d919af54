"""What a trace keeps of a content: plain JSON, bounded, without images and secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from llsflow.schema.inference import ImageContentItem, TextContentItem, UserMessage
from llsflow.schema.traces import CONTENT_CHARACTERS, TokenCounts, TurnTrace, bounded, characters

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_small_content_stays_as_it_is() -> None:
    content = {"messages": [{"role": "user", "content": "Grüße, 世界 🎉"}], "n": 1, "x": 0.5, "on": True, "no": None}
    assert bounded(content) == content


def test_a_long_text_is_cut_and_the_short_ones_beside_it_stay() -> None:
    content = ["first", "x" * 10_000_000, "y" * 200_000, "last"]
    first, long, longer, last = bounded(content)
    assert (first, last) == ("first", "last")
    assert long.endswith("x…")
    assert 45_000 < len(long) == len(longer) <= 50_000
    assert characters(bounded(content)) <= CONTENT_CHARACTERS


@pytest.mark.parametrize(
    "content",
    [list(range(1_000_000)), {f"key {number}": [] for number in range(100_000)}, [[0] * 1000] * 1000],
    ids=["numbers", "keys", "lists"],
)
def test_of_a_content_of_too_many_parts_the_first_are_kept(content: Any) -> None:
    kept = bounded(content)
    assert len(json.dumps(kept, ensure_ascii=False)) < CONTENT_CHARACTERS
    assert [*kept][:1] + [*kept][-1:] == [next(iter(content)), "…"]


def test_keys_that_are_too_long_leave_nothing() -> None:
    assert bounded({"k" * 1_000_000: 1}).startswith("[left out: ")


def test_images_become_notes() -> None:
    image = ImageContentItem.model_validate({"image": {"data": "iVBORw0KGgo="}})
    said = bounded([UserMessage(content=[image, TextContentItem(text="what is it?")])])
    parts = [{"type": "text", "text": "[image]"}, {"type": "text", "text": "what is it?"}]
    assert said == [{"role": "user", "content": parts}]
    of_endpoint = {"type": "image_url", "image_url": {"url": "https://host/?signature=abc"}}
    assert bounded([of_endpoint]) == [{"type": "text", "text": "[image]"}]
    assert bounded("data:application/pdf;base64," + "A" * 1000) == "[application/pdf, 1,028 characters of base64]"


def test_what_is_secret_by_its_name_is_left_out() -> None:
    content = {"tool": {"Authorization": "Bearer abc", "headers": {"X-Key": "abc"}, "api_key": "abc", "query": "x"}}
    assert "abc" not in json.dumps(bounded(content))
    assert bounded(content)["tool"]["query"] == "x"


class Unprintable:
    def __str__(self) -> str:
        raise OSError("no")


def test_nothing_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    odd = [float("nan"), 1 << 80, b"\x00\x01", NOW, Unprintable(), {1: {2}}]
    expected = ["nan", "[1.209e+24]", "[2 bytes]", str(NOW), "[Unprintable]", {"1": [2]}]
    assert bounded(odd) == expected
    assert "…" in json.dumps(bounded(deep), ensure_ascii=False)


def test_a_trace_reads_back_as_it_was() -> None:
    fields: dict[str, Any] = {"name": "bot", "agent_id": "a", "session_id": "s", "turn_id": "t"}
    fields |= {"started": NOW, "ended": NOW, "messages": ["x" * 1000]}
    span = {"kind": "tool", "name": "add", "started": NOW, "ended": NOW}
    inner = {**span, "inputs": "y" * 1000, "error": "z" * 1000}
    trace = TurnTrace.model_validate({**fields, "spans": [{**span, "outputs": "y" * 1000, "spans": [inner]}]})
    assert TurnTrace.model_validate(json.loads(trace.model_dump_json())) == trace


def test_tokens_are_read_from_a_chat_completion_s_usage() -> None:
    counts = TokenCounts.of_usage({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})
    assert counts == TokenCounts(input=7, output=5)
    assert (counts + counts).total == 24
    assert TokenCounts.of_usage({}) is None
