"""rerank::ndcg and rerank::mrr: how good the order is that a reranker puts items in."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.schema.scoring import AggregationFunctionType
from llsflow.scorers.base import EXPECTED, NO_ANSWER, Params, Scorer, ScoreRow, json_column, unscored


class _Ranking(Scorer):
    """Reads `generated_answer`, the order as `POST /v1alpha/inference/rerank` returns it, and each item's relevance."""

    aggregations = (AggregationFunctionType.AVERAGE,)
    ranks = True

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""

        def score(row: Mapping[str, Any]) -> dict[str, Any]:
            if row.get(EXPECTED) is None or row.get("generated_answer") is None:
                return unscored(NO_ANSWER)
            try:
                relevance = _relevance(row)
                order = _order(row, len(relevance))
            except ValueError as error:
                return unscored(str(error))
            if not any(relevance):
                return unscored("no item of the row is relevant")
            return {"score": self.of([relevance[place] for place in order], relevance)}

        return score

    @abstractmethod
    def of(self, found: Sequence[float], relevance: Sequence[float]) -> float:
        """Return the score of an order of k items of n.

        found: (k) relevance in the order; relevance: (n) in the order of the row, of which at least one is not 0.
        """


class Ndcg(_Ranking):
    """Discounted cumulative gain of the order, as a share of the best that as many places can have.

    Source: Järvelin & Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", TOIS 20; the gain is the
    relevance itself and the discount log2(place + 1), as in trec_eval's ndcg_cut.
    """

    id = "rerank::ndcg"

    def of(self, found: Sequence[float], relevance: Sequence[float]) -> float:
        """Return nDCG@k."""
        return _dcg(found) / _dcg(sorted(relevance, reverse=True)[: len(found)])


class Mrr(_Ranking):
    """One divided by the place of the first relevant item; 0: none is among those that were returned.

    Source: Voorhees 1999, "The TREC-8 Question Answering Track Report", section 3.
    """

    id = "rerank::mrr"

    def of(self, found: Sequence[float], relevance: Sequence[float]) -> float:
        """Return the reciprocal rank within the k places."""
        return next((1 / place for place, gain in enumerate(found, 1) if gain > 0), 0.0)


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))


def _relevance(row: Mapping[str, Any]) -> list[float]:
    found = json_column(row, EXPECTED)
    if not isinstance(found, list) or not all(type(grade) in (int, float) and 0 <= grade < math.inf for grade in found):
        raise ValueError(f"{EXPECTED} is {str(found)[:40]!r}: a list of numbers is needed, one for each item")
    return found


def _order(row: Mapping[str, Any], items: int) -> list[int]:
    found = json_column(row, "generated_answer")
    try:
        order = [one["index"] for one in found]
    except (TypeError, KeyError):
        raise ValueError("generated_answer is no list of {index, relevance_score}") from None
    if not order or len({*order}) != len(order) or not all(type(at) is int and 0 <= at < items for at in order):
        raise ValueError(
            f"generated_answer names items {str(order)[:40]}: each of 0 to {items - 1} may stand there once"
        )
    return order
