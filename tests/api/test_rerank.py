"""Reranking over HTTP: as a body, as the specification's literal query, and by the official client."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import Served
from tests.api.errors import assert_error

URL = "/v1alpha/inference/rerank"
ITEMS = ["Berlin lies on the Spree.", "Paris is the capital of France.", "A capital letter."]
BODY: dict[str, Any] = {"model": "bm25", "query": "capital of France", "items": ITEMS}


def test_a_body(http: httpx.Client) -> None:
    told = http.post(URL, json=BODY).raise_for_status().json()
    assert list(told) == ["data"]
    assert [one["index"] for one in told["data"]] == [1, 2, 0]
    scores = [one["relevance_score"] for one in told["data"]]
    assert scores == sorted(scores, reverse=True)
    assert set(told["data"][0]) == {"index", "relevance_score"}
    cut = http.post(URL, json={**BODY, "max_num_results": 2}).json()["data"]
    assert cut == told["data"][:2]


def test_the_literal_query(http: httpx.Client) -> None:
    query = {"model": "bm25", "query": "capital of France", "items": json.dumps(ITEMS), "max_num_results": "2"}
    assert http.post(URL, params=query).json()["data"] == http.post(URL, json=BODY).json()["data"][:2]


def test_the_official_client(served: Served) -> None:
    parts: Any = [ITEMS[0], {"type": "text", "text": ITEMS[1]}]
    found = served.client.alpha.inference.rerank(model="bm25", query="France", items=parts, max_num_results=1)
    assert [(one.index, one.relevance_score > 0) for one in found] == [(1, True)]


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"model": "bm52"}, 404, "no model 'bm52'; did you mean 'bm25'?"),
        ({"model": "tiny-llama"}, 400, "'tiny-llama' writes text and ranks nothing: take a model of model_type rerank"),
        ({"items": []}, 400, "items"),
        ({"max_num_results": 0}, 400, "max_num_results"),
        (
            {"items": ["a", {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
            400,
            "items.1: is an image: bm25 reads text",
        ),
    ],
)
def test_what_is_refused(http: httpx.Client, changes: dict[str, Any], status: int, sentence: str) -> None:
    assert_error(http.post(URL, json={**BODY, **changes}), status, sentence)
