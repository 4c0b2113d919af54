"""Streams, texts that are gone on with, and answers that keep to a format, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llsflow.models.local import LocalModel
from llsflow.models.serving import Engine
from llsflow.schema.sampling import SamplingParams
from tests.models.serving import served, until
from tests.models.small import ask

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def engine() -> Engine:
    return Engine(max_models=2, batch_size=8, device="cpu")


@pytest.fixture
def client(engine: Engine, tmp_path: Path, tiny_folder: Path) -> Iterator[httpx.Client]:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "one.yaml").write_text(yaml.safe_dump({"model_id": "one", "path": str(tiny_folder)}))
    engine.start()
    with served(engine, tmp_path / "conf") as opened:
        yield opened


def body(text: str, **changes: Any) -> dict[str, Any]:
    return {"model": "one", "messages": ask(text)[0].messages, "temperature": 0, "max_tokens": 24, **changes}


def events(client: httpx.Client, url: str, content: dict[str, Any]) -> list[Any]:
    with client.stream("POST", url, json={**content, "stream": True}) as response:
        response.raise_for_status()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("changes", [{}, {"stop": ["a", "zz"]}, {"temperature": 1.4, "seed": 5}, {"max_tokens": 1}])
def test_a_stream_is_the_whole_answer_in_parts(client: httpx.Client, changes: dict[str, Any]) -> None:
    for text in ("abc", "what now", "x"):
        whole = client.post(CHAT, json=body(text, **changes)).raise_for_status().json()
        parts = events(client, CHAT, body(text, stream_options={"include_usage": True}, **changes))
        *said, last, count = parts
        assert (
            "".join(part["choices"][0]["delta"]["content"] for part in said)
            == (whole["choices"][0]["message"]["content"])
        )
        assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
        assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
        assert (count["choices"], count["usage"]) == ([], whole["usage"])
        assert {part["object"] for part in parts} == {"chat.completion.chunk"}
        assert len({part["id"] for part in parts}) == 1


def test_a_text_is_gone_on_with_as_it_is(client: httpx.Client, tiny_folder: Path) -> None:
    asked = {"model": "one", "prompt": "Once upon", "temperature": 0, "max_tokens": 12}
    told = client.post(TEXT, json=asked).raise_for_status().json()
    local = LocalModel.load(tiny_folder, device="cpu")
    (ids,) = local.encode(["Once upon"])
    row = local.row(ids, SamplingParams(max_tokens=12), seed=0)
    local.decode([row], lambda left: None, at_once=1)
    assert told["choices"][0]["text"] == local.generation(row, "").text
    assert (told["object"], told["usage"]["prompt_tokens"]) == ("text_completion", len("Once upon"))
    parts = events(client, TEXT, asked)
    assert "".join(part["choices"][0]["text"] for part in parts) == told["choices"][0]["text"]


def test_what_fails_before_the_first_event_has_its_status(client: httpx.Client) -> None:
    for content, status in ((body("x", model="nine"), 404), (body("x" * 95), 400), (body("x", n=3), 400)):
        assert client.post(CHAT, json={**content, "stream": True}).status_code == status


def test_a_reader_that_leaves_in_mid_stream_frees_its_place(
    client: httpx.Client, engine: Engine, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llsflow.models.local._end_tokens", lambda model, tokenizer: frozenset())
    long = {"init": {"architecture": {**tiny, "max_position_embeddings": 200_000}}, "model_id": "long"}
    (tmp_path / "conf" / "model" / "long.yaml").write_text(yaml.safe_dump(long))
    endless = body("x", model="long", max_tokens=150_000, stream=True, temperature=1)
    with client.stream("POST", CHAT, json=endless) as response:
        lines = response.iter_lines()  # kept: with the last reader of it the connection closes
        first = next(lines)
        assert engine.health()["waiting"] == 1, f"{vars(engine.counts)} after {first}"
    until(lambda: engine.counts.dropped == 1)
    assert engine.health()["waiting"] == 0


def test_those_who_come_later_join_those_under_way(
    client: httpx.Client, engine: Engine, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer of minutes is under way: others are answered meanwhile, each as if it were alone."""
    alone = [client.post(CHAT, json=body(text)).json()["choices"] for text in "abcdef"]
    monkeypatch.setattr("llsflow.models.local._end_tokens", lambda model, tokenizer: frozenset())
    long = {"init": {"architecture": {**tiny, "max_position_embeddings": 200_000}}, "model_id": "long"}
    (tmp_path / "conf" / "model" / "long.yaml").write_text(yaml.safe_dump(long))
    endless = body("x", model="long", max_tokens=150_000, stream=True, temperature=1)
    with client.stream("POST", CHAT, json=endless) as response, ThreadPoolExecutor(6) as pool:
        lines = response.iter_lines()
        next(lines)
        same = client.post(CHAT, json=body("y", model="long", max_tokens=9, temperature=1)).raise_for_status()
        assert same.json()["usage"]["completion_tokens"] == 9
        others = list(pool.map(lambda text: client.post(CHAT, json=body(text)).json()["choices"], "abcdef"))
        assert others == alone, "the other model's answers changed while both took turns"
        assert engine.health()["waiting"] == 1
        next(lines)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_answers_keep_to_the_schema_beside_others_that_need_not(client: httpx.Client, stream: bool) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
    asked = [
        body(f"q{seed}", seed=seed, temperature=1, max_tokens=88, **({"response_format": wanted} if seed % 2 else {}))
        for seed in range(8)
    ]

    def answer(content: dict[str, Any]) -> str:
        if stream:
            return "".join(part["choices"][0]["delta"].get("content", "") for part in events(client, CHAT, content))
        return str(client.post(CHAT, json=content).raise_for_status().json()["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, asked))
    for told in answers[1::2]:
        read = json.loads(told)
        assert set(read) == {"city", "days"}
        assert 0 <= read["days"] <= 9


def test_a_prompt_that_was_read_before_is_not_read_again(
    client: httpx.Client, engine: Engine, tiny_folder: Path
) -> None:
    said = "the same words at the start of each question, "
    local = LocalModel.load(tiny_folder, device="cpu")
    for text in ("one", "two", "twin"):
        (alone,) = local.generate(ask(said + text), SamplingParams(max_tokens=10), batch_size=1)
        told = client.post(CHAT, json=body(said + text, max_tokens=10)).json()
        assert told["choices"][0]["message"]["content"] == alone.text
    # the mark of the role and the words; of "two" and "twin" one character more
    start = 1 + len(said)
    assert engine.counts.shared_tokens >= start + start + 1
    assert engine.counts.read_tokens > engine.counts.shared_tokens
