"""Composed and decomposed letters (NFC, NFD): the same text for every scoring function, ifeval's instructions apart."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from llsflow.scorers import SCORERS

TEXT = "Crème brûlée à Đà Nẵng, 각"


def rows(expected: str, generated: str) -> dict[str, dict[str, Any]]:
    """Return a row for each scoring function that compares texts."""
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    return {
        "basic::equality": {"expected_answer": expected, "generated_answer": generated},
        "basic::subset_of": {"expected_answer": expected, "generated_answer": f"So: {generated}."},
        "basic::docvqa": {"expected_answer": json.dumps([expected]), "generated_answer": generated},
        "basic::regex_parser_math_response": {
            "expected_answer": f"\\text{{{expected}}}",
            "generated_answer": f"\\boxed{{\\text{{{generated}}}}}",
        },
        "basic::regex_parser_multiple_choice_answer": {
            "expected_answer": "B",
            "generated_answer": unicodedata.normalize("NFD" if generated != expected else "NFC", "Réponse : B"),
        },
        "basic::bfcl": {
            "function": [function],
            "ground_truth": [{"f": {"a": [expected]}}],
            "generated_answer": f"f(a={generated!r})",
        },
    }


@pytest.mark.parametrize("scorer", rows("", ""))
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_the_form_does_not_count(scorer: str, forms: tuple[Any, Any]) -> None:
    expected, generated = (unicodedata.normalize(form, TEXT) for form in forms)
    assert SCORERS[scorer].score(rows(expected, generated)[scorer])["score"] == 1.0


@pytest.mark.parametrize("scorer", ["basic::equality", "basic::subset_of", "basic::docvqa", "basic::bfcl"])
def test_signs_that_only_look_alike_are_others(scorer: str) -> None:
    """Compatibility forms (NFKC) stay apart: 10² is not 102."""
    assert SCORERS[scorer].score(rows("102", "10²")[scorer])["score"] == 0.0
    assert SCORERS[scorer].score(rows("Creme", "Crème")[scorer])["score"] == 0.0
