"""Mistakes of rows: one sentence for all rows that have the same one."""

from __future__ import annotations

from llsflow.data.parts import kind_of
from llsflow.data.problems import grouped
from llsflow.errors import Mistake


def test_the_same_mistake_of_other_values_is_told_once() -> None:
    values = ["it's: 1", 'a "b"', "x" * 100, 2.5, -3, [{"a": 1}], {"b": "c"}]
    mistakes = [Mistake(f"f:{row}", f"answer is {kind_of(value)}: a text") for row, value in enumerate(values, 1)]
    (told,) = grouped(mistakes, 5)
    assert told.message == 'answer is str "it\'s: 1": a text (the same in 6 more rows: 2, 3, 4, 5, 6, 7)'


def test_other_mistakes_are_told_each_and_those_beyond_are_counted() -> None:
    mistakes = [Mistake(f"f:{row}", f"{name} is missing") for row, name in enumerate("aabbc", 1)]
    told = [(mistake.where, mistake.message) for mistake in grouped(mistakes, 2)]
    assert told == [
        ("f:1", "a is missing (the same in 1 more row: 2)"),
        ("f:3", "b is missing (the same in 1 more row: 4)"),
        ("", "and 1 more rows with 1 other kinds of mistakes"),
    ]
