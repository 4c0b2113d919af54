"""Several shields at once: the worst that one finds, whose time is over, and who holds an answer back."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.agents import SafetyViolation
from llsflow.shields import NamedShield, Said, holds_back, look
from tests.patience import PATIENCE_SECONDS
from tests.scripted import Answer, scripted
from tests.shields.making import nobody, shield


def seeks(name: str, pattern: str, level: str = "error", **changes: Any) -> NamedShield:
    provider = {"type": "patterns", "patterns": [{"pattern": pattern}]}
    return shield(provider, shield_id=name, violation_level=level, user_message=f"{name} says no", **changes)


async def _silent(model: str, messages: Sequence[Mapping[str, Any]]) -> str:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def _gone(model: str, messages: Sequence[Mapping[str, Any]]) -> str:
    raise UnavailableError("the endpoint is gone")


async def _broken(model: str, messages: Sequence[Mapping[str, Any]]) -> str:
    raise RuntimeError("a mistake of ours")


def asks(ask: Any, name: str = "guard", **changes: Any) -> NamedShield:
    return shield({"type": "llama_guard", "model": "wise"}, ask, shield_id=name, **changes)


def found(*shields: NamedShield, text: str = "abc") -> SafetyViolation | None:
    return asyncio.run(look(shields, [Said("user", text)]))


def test_nothing_is_found_by_none_and_by_those_that_find_nothing() -> None:
    assert found() is None
    assert found(seeks("one", "x"), seeks("two", "y")) is None


def test_what_one_finds_is_told_with_its_name() -> None:
    assert found(seeks("one", "x"), seeks("two", "a", "warn"), seeks("three", "y")) == SafetyViolation.model_validate(
        {
            "violation_level": "warn",
            "user_message": "two says no",
            "metadata": {"pattern": "a", "pattern_index": 0, "shield_id": "two"},
        }
    )


@pytest.mark.parametrize(
    ("levels", "worst", "others"),
    [
        (("info", "warn", "error"), "s2", ["s0", "s1"]),
        (("warn", "error", "info"), "s1", ["s0", "s2"]),
        (("info", "warn"), "s1", ["s0"]),
        (("error", "error"), "s0", ["s1"]),
    ],
)
def test_of_several_the_worst_counts_and_the_others_are_named(
    levels: tuple[str, ...], worst: str, others: list[str]
) -> None:
    told = found(*(seeks(f"s{place}", "a", level) for place, level in enumerate(levels)))
    assert told is not None
    assert (told.metadata["shield_id"], told.user_message) == (worst, f"{worst} says no")
    assert [other["shield_id"] for other in told.metadata["others"]] == others
    assert [other["violation_level"] for other in told.metadata["others"]] == [levels[int(s[1])] for s in others]
    assert told.metadata["others"][0]["metadata"] == {"pattern": "a", "pattern_index": 0}


def test_a_shield_asked_twice_tells_the_same() -> None:
    one, two = seeks("one", "a"), seeks("two", "a")
    assert found(one, two) == found(one, two)
    assert found(two) == SafetyViolation.model_validate(
        {
            "violation_level": "error",
            "user_message": "two says no",
            "metadata": {"pattern": "a", "pattern_index": 0, "shield_id": "two"},
        }
    )


def test_a_shield_that_does_not_answer_in_time_lets_nothing_through() -> None:
    with pytest.raises(UnavailableError) as told:
        found(asks(_silent, timeout_seconds=0.01), seeks("two", "x"))
    assert str(told.value) == "shield guard: no answer within 0.01 s (timeout_seconds)"


def test_a_server_that_does_not_answer_in_time_lets_nothing_through() -> None:
    over = threading.Event()

    def say(*_: Any) -> Answer:
        over.wait(PATIENCE_SECONDS)
        return Answer(body={})

    with scripted(say) as script:
        made = shield({"type": "moderation", "base_url": script.url}, timeout_seconds=0.2)

        async def once() -> None:
            try:
                await made.look([Said("user", "a")])
            finally:
                await made.close()

        try:
            with pytest.raises(UnavailableError, match=re.escape("shield given: no answer within 0.2 s")):
                asyncio.run(once())
        finally:
            over.set()


def test_an_error_that_was_found_wins_over_a_shield_that_cannot_be_asked() -> None:
    told = found(asks(_gone), seeks("two", "a", "error"))
    assert told is not None
    assert told.metadata["shield_id"] == "two"
    assert "others" not in told.metadata


@pytest.mark.parametrize("level", ["warn", "info"])
def test_less_than_an_error_does_not_win_over_a_shield_that_cannot_be_asked(level: str) -> None:
    with pytest.raises(UnavailableError, match=r"^shield guard: the endpoint is gone$"):
        found(seeks("two", "a", level), asks(_gone))


def test_shields_that_cannot_be_asked_are_told_together() -> None:
    with pytest.raises(UnavailableError) as told:
        found(asks(_gone), seeks("fine", "x"), asks(_silent, "slow", timeout_seconds=0.01))
    message = "shield guard: the endpoint is gone; shield slow: no answer within 0.01 s (timeout_seconds)"
    assert str(told.value) == message


def test_a_mistake_of_ours_is_no_shield_that_cannot_be_asked() -> None:
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        found(seeks("two", "a"), asks(_broken))


def test_a_time_limit_within_a_shield_is_not_taken_for_its_own() -> None:
    async def late(*_: Any) -> str:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        found(asks(late))


def test_all_are_asked_at_the_same_time() -> None:
    async def meet() -> SafetyViolation | None:
        here = asyncio.Barrier(3)

        async def ask(*_: Any) -> str:
            await here.wait()
            return "safe"

        return await look([asks(ask, f"s{place}") for place in range(3)], [Said("user", "a")])

    assert asyncio.run(meet()) is None


def test_the_conversation_reaches_every_shield() -> None:
    heard: list[str] = []

    async def ask(_: str, messages: Sequence[Mapping[str, Any]]) -> str:
        heard.append(messages[0]["content"])
        return "safe"

    asyncio.run(look([asks(ask)], [Said("user", "first"), Said("assistant", "then")]))
    assert "User: first\n\nAgent: then\n\n" in heard[0]


@pytest.mark.parametrize(
    ("wanted", "held"), [((), False), ((False,), False), ((False, True), True), ((True, False), True)]
)
def test_an_answer_is_held_back_where_one_shield_wants_it(wanted: tuple[bool, ...], held: bool) -> None:
    assert holds_back([seeks("a", "a", hold_back=one) for one in wanted]) is held


def test_an_answer_is_held_back_unless_something_else_is_said() -> None:
    assert holds_back([shield({"type": "llama_guard", "model": "wise"}, nobody)])
