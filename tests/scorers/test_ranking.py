"""nDCG and MRR by worked arithmetic, at every cut, and what cannot be scored."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from llsflow.rerank import as_answer
from llsflow.scorers import find_scorer, score_rows

NDCG, MRR = "rerank::ndcg", "rerank::mrr"


def row(relevance: Any, order: Any) -> dict[str, Any]:
    ranking = [{"index": place, "relevance_score": 0.0} for place in order] if isinstance(order, list) else order
    return {"expected_answer": json.dumps(relevance), "generated_answer": json.dumps(ranking)}


@pytest.mark.parametrize(
    ("relevance", "order", "ndcg", "mrr"),
    [
        ([0, 1, 0], [1, 0, 2], 1.0, 1.0),
        ([0, 1, 0], [0, 1, 2], 1 / math.log2(3), 1 / 2),
        ([3, 2, 0, 1], [1, 0], (2 + 3 / math.log2(3)) / (3 + 2 / math.log2(3)), 1.0),
        ([0, 0, 2], [0, 1], 0.0, 0.0),
        ([1, 1, 1], [2], 1.0, 1.0),
    ],
)
def test_worked_arithmetic(relevance: list[int], order: list[int], ndcg: float, mrr: float) -> None:
    assert find_scorer(NDCG).score(row(relevance, order))["score"] == pytest.approx(ndcg)
    assert find_scorer(MRR).score(row(relevance, order))["score"] == pytest.approx(mrr)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=2, max_size=9, unique_by=lambda pair: pair[1]))
def test_ndcg_is_scikit_learns(pairs: list[tuple[int, float]]) -> None:
    relevance, scores = zip(*pairs, strict=True)
    for cut in range(1, len(pairs) + 1):
        given_row = {"expected_answer": list(relevance), "generated_answer": as_answer(scores, cut)}
        found = find_scorer(NDCG).score(given_row)
        if any(relevance):
            # its ideal is cut at k too
            assert found["score"] == pytest.approx(ndcg_score(np.array([relevance]), np.array([scores]), k=cut))
        else:
            assert found == {"score": None, "unscored": "no item of the row is relevant"}


@pytest.mark.parametrize(
    ("relevance", "order", "why"),
    [
        ([0, 1], [0, 0], "each of 0 to 1 may stand there once"),
        ([0, 1], [2], "each of 0 to 1 may stand there once"),
        ([0, 1], [], "each of 0 to 1 may stand there once"),
        ([0, 1], "a text", "generated_answer is no list of {index, relevance_score}"),
        ("much", [0], "a list of numbers is needed, one for each item"),
        ([0, -1], [0], "a list of numbers is needed, one for each item"),
    ],
)
def test_what_cannot_be_scored_says_why(relevance: Any, order: Any, why: str) -> None:
    result = score_rows([row(relevance, order), row([1], [0])], NDCG)
    assert result.score_rows[0]["score"] is None
    assert why in result.score_rows[0]["unscored"]
    average = result.aggregated_results["average"]
    assert (average["average"], average["num_unscored"]) == (1.0, 1)
