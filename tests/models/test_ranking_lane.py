"""/v1/rerank of the engine: scores, order, turns with models that write, too little memory, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

from llsflow.models.ranking import RankingModel
from llsflow.models.remote import RemoteModel
from llsflow.models.serving import Engine
from tests.models.rerankers import cross_encoder, embedding_model
from tests.models.serving import served, until
from tests.models.small import ask
from tests.models.test_ranking import ITEMS, QUERY

URL = "/v1/rerank"


@pytest.fixture
def engine() -> Engine:
    return Engine(max_models=2, batch_size=3, device="cpu")


@pytest.fixture
def client(engine: Engine, tmp_path: Path, tiny_folder: Path) -> Iterator[httpx.Client]:
    folders = {
        "text": {"path": str(tiny_folder)},
        "cross": {"path": str(cross_encoder(tmp_path / "cross")), "model_type": "rerank"},
        "vectors": {"path": str(embedding_model(tmp_path / "vectors")), "model_type": "rerank"},
    }
    (tmp_path / "conf" / "model").mkdir(parents=True)
    for name, config in folders.items():
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text(yaml.safe_dump({"model_id": name, **config}))
    engine.start()
    with served(engine, tmp_path / "conf") as opened:
        yield opened


def body(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "query": QUERY, "documents": ITEMS, **changes}


@pytest.mark.parametrize("model", ["cross", "vectors"])
def test_the_order_is_that_of_the_scores(client: httpx.Client, tmp_path: Path, model: str) -> None:
    scores = RankingModel.load(tmp_path / model, device="cpu").scores(QUERY, ITEMS)
    told = client.post(URL, json=body(model)).raise_for_status().json()
    assert told["model"] == model
    assert {one["index"]: one["relevance_score"] for one in told["results"]} == pytest.approx(
        dict(enumerate(scores)), abs=1e-5
    )
    found = [one["relevance_score"] for one in told["results"]]
    assert found == sorted(found, reverse=True)
    cut = client.post(URL, json=body(model, documents=[{"text": one} for one in ITEMS], top_n=2, return_documents=True))
    assert [one["document"]["text"] for one in cut.json()["results"]] == [
        ITEMS[one["index"]] for one in told["results"][:2]
    ]


def test_rerankers_and_models_that_write_take_turns_in_memory(client: httpx.Client) -> None:
    def post(number: int) -> int:
        if number % 3 == 0:
            said = {"model": "text", "messages": ask(f"q{number}")[0].messages, "max_tokens": 8}
            return client.post("/v1/chat/completions", json=said).status_code
        return client.post(URL, json=body(("cross", "vectors")[number % 2])).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(18))) == {200}
    health = client.get("/health").json()
    assert (health["answered"], health["failed"], health["waiting"]) == (18, 0, 0)
    assert len(health["models"]) <= 2


def test_the_remote_door_reads_what_the_engine_says(client: httpx.Client, tmp_path: Path) -> None:
    scores = RankingModel.load(tmp_path / "cross", device="cpu").scores(QUERY, ITEMS)
    remote = RemoteModel.of_engine(str(client.base_url).rstrip("/"), "cross", at_once=4)
    made = remote.rank({7: (QUERY, ITEMS), 2: (QUERY, ITEMS[:1])})
    assert made[7] == pytest.approx(scores, abs=1e-5)
    assert made[2] == pytest.approx(scores[:1], abs=1e-5)


def test_with_too_little_memory_fewer_items_are_read_together(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = RankingModel.scores, []

    def scarce(self: RankingModel, query: str, items: list[str], batch_size: int = 32) -> list[float]:
        seen.append(len(items))
        if len(items) > 1 or "dog" in items[0]:
            raise torch.OutOfMemoryError
        return whole(self, query, items, batch_size)

    monkeypatch.setattr(RankingModel, "scores", scarce)
    assert client.post(URL, json=body("cross", documents=ITEMS[:3])).status_code == 200
    assert (seen[0], seen[-1]) == (3, 1)
    refused = client.post(URL, json=body("cross"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "out_of_memory")
    monkeypatch.undo()
    assert client.post(URL, json=body("cross")).status_code == 200


def test_a_failure_is_of_one_request(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RankingModel, "scores", lambda self, query, items: [float("nan")] * len(items))
    told = client.post(URL, json=body("cross"))
    assert (told.status_code, told.json()["error"]["code"]) == (500, "not_a_number")
    monkeypatch.undo()
    assert client.post(URL, json=body("cross")).status_code == 200
    assert until(lambda: client.get("/health").json()["failed"] == 1)


def test_what_needs_no_weights_is_answered_beside_the_queue(client: httpx.Client) -> None:
    told = client.post(URL, json=body("bm25", top_n=1)).raise_for_status().json()
    assert [one["index"] for one in told["results"]] == [1]


@pytest.mark.parametrize(
    ("url", "content", "sentence"),
    [
        (URL, body("text"), "'text' writes text and ranks nothing: take a model of model_type rerank"),
        (
            "/v1/chat/completions",
            {"model": "cross", "messages": ask("hi")[0].messages},
            "'cross' ranks and writes no text: ask it at /v1/rerank",
        ),
        (URL, {"model": "cross", "documents": [""], "top_n": 0, "rank": 1}, "rank: not available here: leave it out"),
        (URL, [], "the body is not a JSON object: send {model, query, documents, …}"),
    ],
)
def test_what_is_refused(client: httpx.Client, url: str, content: Any, sentence: str) -> None:
    told = client.post(url, json=content)
    assert told.status_code == 400
    assert sentence in told.json()["error"]["message"]


def test_the_vectors_of_an_embedding_model(client: httpx.Client, tmp_path: Path) -> None:
    vectors = RankingModel.load(tmp_path / "vectors", device="cpu").vectors(ITEMS)
    told = client.post("/v1/embeddings", json={"model": "vectors", "input": ITEMS}).raise_for_status().json()
    assert [(one["object"], one["index"]) for one in told["data"]] == [("embedding", n) for n in range(len(ITEMS))]
    for one, vector in zip(told["data"], vectors, strict=True):
        assert one["embedding"] == pytest.approx(vector, abs=1e-5)
    asked = {"model": "vectors", "input": ITEMS[0], "encoding_format": "base64"}
    (packed,) = client.post("/v1/embeddings", json=asked).raise_for_status().json()["data"]
    assert list(memoryview(base64.b64decode(packed["embedding"])).cast("f")) == pytest.approx(vectors[0], abs=1e-5)
    remote = RemoteModel.of_engine(str(client.base_url).rstrip("/"), "vectors", at_once=4)
    assert remote.embed({5: ITEMS[1], 2: ITEMS[0]}) == {
        5: pytest.approx(vectors[1], abs=1e-5),
        2: pytest.approx(vectors[0], abs=1e-5),
    }


@pytest.mark.parametrize("model", ["cross", "bm25", "text"])
def test_what_makes_no_vectors_says_so(client: httpx.Client, model: str) -> None:
    told = client.post("/v1/embeddings", json={"model": model, "input": "hello"})
    assert (told.status_code, told.json()["error"]["message"]) == (
        400,
        f"'{model}' makes no vectors: take an embedding model, of model_type rerank",
    )
    unread = client.post("/v1/embeddings", json={"model": "vectors", "input": "hello", "dimensions": 2})
    assert "dimensions: not available here" in unread.json()["error"]["message"]
