"""What a model is told of earlier turns, in a form that its endpoint takes: tools' images, empty answers, equal ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llsflow.agents.history import of_earlier
from llsflow.agents.sending import NO_OUTPUT, Sending
from llsflow.schema.models import ToolImages
from llsflow.store import StoredTurn

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
IMAGE = {"type": "image", "image": {"data": PIXEL}}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def step(kind: str, **more: Any) -> dict[str, Any]:
    return {"turn_id": "t", "step_id": "s", "step_type": kind, "started_at": NOW.isoformat(), **more}


def turn(*calls: tuple[str, Any], said: str = "done") -> StoredTurn:
    """Return a turn with calls of one message, each an id and what its tool answered."""
    called = [{"call_id": call_id, "tool_name": "look", "arguments": "{}"} for call_id, _ in calls]
    answered = [{"call_id": call_id, "tool_name": "look", "content": content} for call_id, content in calls]
    responses: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "stop_reason": "end_of_turn", "tool_calls": called},
        {"role": "assistant", "content": said, "stop_reason": "end_of_turn"},
    ]
    steps = (
        step("inference", model_response=responses[0]),
        step("tool_execution", tool_calls=called, tool_responses=answered),
        step("inference", model_response=responses[1]),
    )
    return StoredTurn("t", "s", {"messages": [{"role": "user", "content": "?"}]}, NOW, status="completed", steps=steps)


@pytest.mark.parametrize(
    ("images", "roles"),
    [
        ("described", ["user", "assistant", "tool", "tool", "assistant"]),
        ("tool_message", ["user", "assistant", "tool", "tool", "assistant"]),
        ("user_message", ["user", "assistant", "tool", "tool", "user", "assistant"]),
    ],
)
def test_images_of_tools_are_shown_as_the_endpoint_takes_them(images: ToolImages, roles: list[str]) -> None:
    """Between the answers to calls of one message nothing else stands: strict servers refuse it."""
    told = of_earlier([turn(("a", [{"type": "text", "text": "a map"}, IMAGE]), ("b", "4"))], Sending(images=images))
    assert [message["role"] for message in told] == roles
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    first = told[2]["content"]
    match images:
        case "described":
            assert first == "a map\n[an image, image/png: it is not shown to you]"
        case "tool_message":
            assert first == [{"type": "text", "text": "a map"}, shown]
        case "user_message":
            assert first == "a map\n[an image, image/png: it is shown below]"
            assert told[4]["content"][1:] == [shown]


@pytest.mark.parametrize("content", ["", " \n", []])
def test_an_empty_answer_of_a_tool_is_a_sentence_at_endpoints_of_others(content: Any) -> None:
    assert of_earlier([turn(("a", content))], Sending())[2]["content"] == NO_OUTPUT


def test_a_session_that_was_stored_with_equal_ids_goes_on() -> None:
    """Each call gets an id of its own, each answer that of its call, and every time the same."""
    told = of_earlier([turn(("a", "1")), turn(("a", "2"), ("a", "3"))], Sending())
    ids = [call["id"] for message in told for call in message.get("tool_calls", ())]
    answered = [(message["tool_call_id"], message["content"]) for message in told if message["role"] == "tool"]
    assert len(set(ids)) == 3
    assert ids[0] == "a"
    assert answered == list(zip(ids, ["1", "2", "3"], strict=True))
    assert told == of_earlier([turn(("a", "1")), turn(("a", "2"), ("a", "3"))], Sending())
