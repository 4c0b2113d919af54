"""DocVQA: what counts as the same answer once both are normalised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.scorers import SCORERS
from llsflow.scorers.docvqa import CONTRACTIONS, normalise

SCORER = SCORERS["basic::docvqa"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Dog", "dog"),
        ("a walk to the park in May", "walk park may"),
        ("Dr. Smith.", "dr smith"),
        ("3.5 %", "3.5 %"),
        ("$1,234.50", "$1234.50"),  # a comma within a number: every mark goes without a space in its place
        ("well-known", "well known"),
        ("well -known", "well known"),  # beside a blank: gone
        ("(555) 123-4567", "555 123 4567"),
        ("red,green", "red green"),
        ("two of Three", "2 of 3"),
        ("none", "0"),
        ("1st prize", "first prize"),
        ("dont, its", "don't its"),
        ("youre I'dve", "you're i'dve"),
        ("shouldnt've", "shouldn't've"),
        ("  much   space ", "much space"),
        ("", ""),
    ],
)
def test_normalising(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "bare", ["aint", "couldve", "hed", "its", "theyll", "whos", "were", "oclock", "cant", "wed've"]
)
def test_contractions(bare: str) -> None:
    """Those that are words of their own without the apostrophe stay as they are."""
    assert (bare in CONTRACTIONS) is (bare not in ("its", "were"))


@pytest.mark.parametrize(
    ("expected", "generated", "score"),
    [
        ('["Paris", "the city of Paris"]', "City of Paris.", 1.0),
        ('["Paris"]', "Paris, France", 0.0),
        (["1,000", "1000"], "1000", 1.0),
        ("[12, true]", "12", 1.0),
        ('["12"]', 12, 1.0),
        ('["x"]', "", 0.0),
    ],
)
def test_one_of_the_accepted_answers(expected: Any, generated: Any, score: float) -> None:
    assert SCORER.score({"expected_answer": expected, "generated_answer": generated}) == {"score": score}


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ("Paris", "expected_answer is the text 'Paris', which is no JSON"),
        ('"Paris"', "expected_answer is Paris: a JSON list of accepted answers is needed"),
        ("[]", "a JSON list of accepted answers is needed"),
        (5, "a JSON list of accepted answers is needed"),
        (None, "expected_answer is absent or null"),
    ],
)
def test_what_is_no_list_is_unscored(expected: Any, told: str) -> None:
    result = SCORER.score({"expected_answer": expected, "generated_answer": "Paris"})
    assert result["score"] is None
    assert told in result["unscored"]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(0, 3), st.booleans())
def test_each_accepted_answer_is_right_as_it_stands(answers: list[str], which: int, as_json: bool) -> None:
    expected = json.dumps(answers) if as_json else answers
    generated = answers[which % len(answers)]
    assert SCORER.score({"expected_answer": expected, "generated_answer": generated})["score"] == 1.0


def test_normalising_does_not_change_the_next() -> None:
    """A table that grows with every word it meets would."""
    before = dict(CONTRACTIONS)
    assert [normalise("one zebra"), normalise("one zebra")] == ["1 zebra", "1 zebra"]
    assert before == CONTRACTIONS
