"""basic::equality and basic::subset_of: what counts as the same text, and what cannot be scored."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.scorers import SCORERS


def score(scorer: str, expected: Any, generated: Any) -> Any:
    return SCORERS[scorer].score({"expected_answer": expected, "generated_answer": generated})["score"]


@pytest.mark.parametrize(
    ("expected", "generated", "equal", "subset"),
    [
        ("2024-01-05", "2024-01-05", 1.0, 1.0),
        ("2024-01-05", "2024-01-05 ", 0.0, 1.0),
        ("2024-01-05", "2024-01-06", 0.0, 0.0),
        ("Paris", "It is Paris.", 0.0, 1.0),
        ("Paris", "paris", 0.0, 0.0),
        ("It is Paris", "Paris", 0.0, 0.0),
        ("é", "é", 1.0, 1.0),
        ("5", "", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("", " \n", 0.0, 1.0),
        ("", "Paris", 0.0, 0.0),
        (" ", "It is Paris", 0.0, 0.0),
    ],
)
def test_text(expected: str, generated: str, equal: float, subset: float) -> None:
    assert score("basic::equality", expected, generated) == equal
    assert score("basic::subset_of", expected, generated) == subset


@pytest.mark.parametrize(("cell", "text"), [(5, "5"), (0.5, "0.5"), (True, "true"), ({"a": ["é"]}, '{"a": ["é"]}')])
def test_a_cell_that_is_no_text_is_compared_as_its_json(cell: Any, text: str) -> None:
    assert score("basic::equality", cell, text) == 1.0
    assert score("basic::subset_of", cell, f"so {text}.") == 1.0
