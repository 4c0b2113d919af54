"""Regular expressions as a shield: what is found, what is told of it, and what no pattern can do to a turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llsflow.errors import ConfigError, UnavailableError
from llsflow.schema.agents import SafetyViolation
from llsflow.shields import NamedShield, Said, patterns, shield_of
from tests.shields.making import nobody, shield

EVIL, LONG = "(x+x+)+y", "x" * 5000


def of(*given: Any, **changes: Any) -> NamedShield:
    return shield(
        {"type": "patterns", "patterns": [{"pattern": p} if isinstance(p, str) else p for p in given]}, **changes
    )


def look(made: NamedShield, *texts: str) -> SafetyViolation | None:
    return asyncio.run(made.look([Said("user", text) for text in texts]))


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("secret", "a SECRET here", True),
        ("(?-i:secret)", "a SECRET here", False),
        ("^secret", "a secret", False),
        (r"\p{Han}", "漢", True),
        ("secret", "", False),
        ("^$", "", True),
    ],
)
def test_a_pattern_is_looked_for_anywhere_and_without_regard_to_case(pattern: str, text: str, found: bool) -> None:
    assert (look(of(pattern), text) is not None) is found


def test_only_the_last_message_is_looked_at() -> None:
    made = of("secret")
    assert look(made, "secret", "nothing") is None
    assert look(made, "nothing", "secret") is not None


def test_what_is_told_is_the_patterns_own_or_the_shields_and_never_the_message() -> None:
    own = {"pattern": r"\d{4}", "violation_level": "info", "user_message": "No numbers."}
    made = of("secret", own, violation_level="warn", user_message="No secrets.")
    found = look(made, "number 1234")
    assert found == SafetyViolation.model_validate(
        {
            "violation_level": "info",
            "user_message": "No numbers.",
            "metadata": {"pattern": r"\d{4}", "pattern_index": 1},
        }
    )
    other = look(made, "secret")
    assert other is not None
    assert (other.violation_level, other.user_message) == ("warn", "No secrets.")
    assert other.metadata == {"pattern": "secret", "pattern_index": 0}


@pytest.mark.parametrize(
    ("levels", "index"),
    [(("info", "warn", "error"), 2), (("warn", "error", "info"), 1), (("warn", "info"), 0), (("warn", "warn"), 0)],
)
def test_of_several_the_worst_counts_and_of_equals_the_first(levels: tuple[str, ...], index: int) -> None:
    found = look(of(*({"pattern": f"a{{{n + 1}}}", "violation_level": level} for n, level in enumerate(levels))), "aaa")
    assert found is not None
    assert (found.metadata["pattern_index"], found.violation_level) == (index, levels[index])


def test_patterns_that_do_not_compile_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        of("(", "good", "[z-a]", "a{5,1}", shield_id="mine")
    wheres = [mistake.where for mistake in told.value.mistakes]
    assert wheres == [f"shield mine: provider.patterns.{index}.pattern" for index in (0, 2, 3)]
    assert "'[z-a]' is no regular expression" in told.value.mistakes[1].message


def test_a_pattern_that_backtracks_without_end_is_stopped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 0.02)
    with pytest.raises(UnavailableError, match="backtracks less") as told:
        look(of("good", EVIL), LONG)
    assert f"shield given: provider.patterns.1.pattern {EVIL!r}" in str(told.value)


def test_what_is_worst_is_looked_for_before_a_pattern_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 0.02)
    found = look(of({"pattern": EVIL, "violation_level": "warn"}, "x"), LONG)
    assert found is not None
    assert found.metadata["pattern_index"] == 1


@pytest.mark.parametrize("seconds", [0.02, 1e-9])
def test_a_search_ends_with_the_time_of_its_shield(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Asked without the limit around it: the thread itself must end, or the test would hang."""
    monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 1000.0)
    made = of(EVIL, "x", timeout_seconds=seconds)
    with pytest.raises(UnavailableError, match="ran out of time"):
        asyncio.run(made.shield.look([Said("user", LONG)]))


def test_the_loop_goes_on_while_a_pattern_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "TIME_LIMIT_SECONDS", 0.05)

    async def beside() -> int:
        task = asyncio.create_task(of(EVIL).look([Said("user", LONG)]))
        rounds = 0
        while not task.done():
            await asyncio.sleep(0)
            rounds += 1
        with pytest.raises(UnavailableError):
            await task
        return rounds

    assert asyncio.run(beside()) > 20


def test_a_shield_is_made_once_and_asked_often() -> None:
    made = shield_of(of("secret").config, nobody)
    assert [look(made, text) is None for text in ("secret", "no", "secret")] == [False, True, False]
    asyncio.run(made.close())
