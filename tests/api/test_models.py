"""Models over HTTP."""

from __future__ import annotations

import httpx

from tests.api.conftest import Served
from tests.api.errors import assert_error


def test_the_official_client(served: Served) -> None:
    model, reranker = served.client.models.list()
    assert (reranker.identifier, reranker.model_type) == ("bm25", "rerank")  # type: ignore[attr-defined]
    assert (model.identifier, model.type, model.api_model_type) == ("tiny", "model", "llm")
    assert served.client.models.retrieve("tiny").identifier == "tiny"


def test_unknown_ones_are_told_with_the_nearest(http: httpx.Client) -> None:
    assert_error(http.get("/v1/models/tony"), 404, "no model 'tony'; did you mean 'tiny'?")
