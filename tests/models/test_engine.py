"""The engine over HTTP: the numbers of an evaluation, errors of the one request that caused them, models in and out."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llsflow.errors import NotFoundError, UnavailableError
from llsflow.models.engine import listen
from llsflow.models.local import LocalModel
from llsflow.models.serving import Engine
from llsflow.schema.sampling import SamplingParams, TopPSamplingStrategy
from tests.models.conftest import PRESETS
from tests.models.serving import chat, served, until
from tests.models.small import REFUSES_TOOLS, ask, questions
from tests.patience import PATIENCE_SECONDS

URL = "/v1/chat/completions"


@pytest.fixture
def conf(tmp_path: Path, tiny_folder: Path) -> Path:
    """Models `one` and `two`, which are alike, and `torn`, whose weights are cut off."""
    folder = tmp_path / "conf"
    twin = shutil.copytree(tiny_folder, tmp_path / "twin")
    torn = Path(shutil.copytree(tiny_folder, tmp_path / "torn"))
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "model").mkdir(parents=True)
    for name, path in (("one", tiny_folder), ("two", twin), ("torn", torn)):
        (folder / "model" / f"{name}.yaml").write_text(yaml.safe_dump({"model_id": name, "path": str(path)}))
    return folder


@pytest.fixture
def engine() -> Engine:
    return Engine(max_models=2, batch_size=8, device="cpu")


@pytest.fixture
def client(engine: Engine, conf: Path) -> Iterator[httpx.Client]:
    engine.start()
    with served(engine, conf) as opened:
        yield opened


def body(text: str, **changes: Any) -> dict[str, Any]:
    return {"model": "one", "messages": ask(text)[0].messages, "temperature": 0, "max_tokens": 8, **changes}


def test_answers_are_those_of_an_evaluation(client: httpx.Client, tiny_folder: Path, engine: Engine) -> None:
    rows, sampling = questions(20), SamplingParams(max_tokens=12)
    expected = LocalModel.load(tiny_folder, device="cpu").generate(rows, sampling, batch_size=6)
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda row: chat(str(client.base_url), "one", row, sampling), rows))
    assert got == [generation.text for generation in expected]
    assert engine.counts.answered == 20


def test_a_seed_is_the_evaluations_first_row(client: httpx.Client, tiny_folder: Path) -> None:
    sampling = SamplingParams(max_tokens=20, strategy=TopPSamplingStrategy(temperature=1.3, top_p=0.9))
    local = LocalModel.load(tiny_folder, device="cpu")
    for seed in (0, 7):
        (expected,) = local.generate(ask("abc"), sampling, batch_size=1, seed=seed)
        assert chat(str(client.base_url), "one", ask("abc")[0], sampling, seed=seed) == expected.text
    answers = {chat(str(client.base_url), "one", ask("abc")[0], sampling) for _ in range(4)}
    assert len(answers) > 1, "without a seed every answer was drawn alike"


def test_the_answer_has_the_protocols_shape(client: httpx.Client) -> None:
    told = client.post(URL, json=body("abc")).raise_for_status().json()
    (choice,) = told["choices"]
    assert (told["object"], told["model"], choice["finish_reason"]) == ("chat.completion", "one", "length")
    assert choice["message"]["role"] == "assistant"
    # one token a byte, the mark of the role before it, the end mark and the assistant's mark after it
    assert told["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == sorted([*PRESETS, "one", "tiny-llama", "torn", "two"])


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (
            body("x", model="nine"),
            404,
            "no model 'nine'; known are bm25, llama-3.2-1b-instruct, one, qwen3-0.6b, smollm2-135m, tiny-llama, torn,",
        ),
        (body("x", n=2), 400, "n: not available"),
        (
            body("x", response_format={"type": "json_schema", "json_schema": {"schema": {"not": {"type": "null"}}}}),
            400,
            "response_format: #/not is not available",
        ),
        (body("x" * 90), 400, "prompt of 93 tokens and max_tokens 8: the model's context is 96"),
        (body("x", model="torn"), 503, "'torn' cannot be loaded: .* is cut off"),
    ],
)
def test_errors_are_the_protocols(client: httpx.Client, content: Any, status: int, sentence: str) -> None:
    sent = client.post(URL, content=content) if isinstance(content, bytes) else client.post(URL, json=content)
    assert sent.status_code == status
    error = sent.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(error["message"])


def test_what_the_chat_template_refuses_is_told(client: httpx.Client, conf: Path, tiny_folder: Path) -> None:
    strict = {"model_id": "strict", "path": str(tiny_folder), "chat_template": REFUSES_TOOLS}
    (conf / "model" / "strict.yaml").write_text(yaml.safe_dump(strict))
    sent = client.post(URL, json=body("x", model="strict", messages=[{"role": "tool", "content": "x"}]))
    assert (sent.status_code, sent.json()["error"]["message"]) == (400, "the chat template refuses it: no tools here")


def test_what_is_not_there(client: httpx.Client) -> None:
    for sent, status in ((client.get("/v1/nothing"), 404), (client.get(URL), 405)):
        assert (sent.status_code, set(sent.json())) == (status, {"error"})
    other = client.get("/health", headers={"Host": "attacker.example"})
    assert other.status_code == 400


def test_requests_that_wait_together_are_generated_together_and_a_bad_one_fails_alone(
    engine: Engine, conf: Path, tiny_folder: Path
) -> None:
    """The engine is started only once all of them wait."""
    texts = ["a", "bc", "x" * 90, "d", "ef"]
    with served(engine, conf) as client, ThreadPoolExecutor(10) as pool:
        sent = [pool.submit(client.post, URL, json=body(text)) for text in texts]
        sent += [pool.submit(client.post, URL, json=body("a", model="two", repetition_penalty=1.5))]
        until(lambda: engine.health()["waiting"] == 6)
        assert engine.health()["status"] == "starting"
        engine.start()
        answers = [future.result() for future in sent]
        assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 200]
        health = client.get("/health").json()
        assert sorted(health.pop("models")) == ["one", "two"]
        counts = {"answered": 5, "failed": 1, "dropped": 0, "batches": 2, "read_tokens": 22, "shared_tokens": 0}
        assert health == {"status": "ready", "waiting": 0, **counts}
    local = LocalModel.load(tiny_folder, device="cpu")
    for text, answer in zip(texts, answers, strict=False):
        if answer.status_code == 200:
            (alone,) = local.generate(ask(text), SamplingParams(max_tokens=8), batch_size=1)
            assert answer.json()["choices"][0]["message"]["content"] == alone.text


def test_the_model_that_was_not_used_longest_leaves(conf: Path) -> None:
    engine = Engine(max_models=1, batch_size=8, device="cpu")
    engine.start()
    with served(engine, conf) as client:
        for model in ("one", "two", "one"):
            client.post(URL, json=body("x", model=model)).raise_for_status()
            assert client.get("/health").json()["models"] == [model]


def test_a_model_that_nobody_asks_leaves(conf: Path) -> None:
    engine = Engine(max_models=2, batch_size=8, device="cpu", idle_seconds=0.3)
    engine.start()
    with served(engine, conf) as client:
        for model in ("one", "two"):
            client.post(URL, json=body("x", model=model)).raise_for_status()
        until(lambda: client.get("/health").json()["models"] == [])
        client.post(URL, json=body("x", model="one")).raise_for_status()
        assert engine.counts.answered == 3


def test_weights_that_changed_are_loaded_again(
    client: httpx.Client, conf: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    from llsflow.models.build import build
    from llsflow.schema.models import ModelInit
    from tests.models.conftest import TINY

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "mine"))
    (conf / "model" / "mine.yaml").write_text(yaml.safe_dump({"model_id": "mine", "path": str(folder)}))
    first = client.post(URL, json=body("x", model="mine")).json()["choices"]
    build(ModelInit(architecture=TINY), seed=1, folder=folder)
    second = client.post(URL, json=body("x", model="mine")).json()["choices"]
    assert first != second


def test_too_little_memory_is_met_with_halves_and_the_one_too_large_fails_alone(
    engine: Engine, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that holds two rows of up to 20 tokens: a limit on what the model is given stands for the device's."""
    import torch
    from transformers import LlamaForCausalLM

    whole = LlamaForCausalLM.forward

    def limited(self: Any, input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.shape[0] > 2 or input_ids.shape[1] > 20:
            raise torch.OutOfMemoryError("tried to allocate")
        return whole(self, input_ids=input_ids, **others)

    functools.update_wrapper(limited, whole)  # the decoder looks at its parameters
    monkeypatch.setattr(LlamaForCausalLM, "forward", limited)
    with served(engine, conf) as client, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(client.post, URL, json=body(text)) for text in ["a", "b", "x" * 40, "c", "d", "e"]]
        until(lambda: engine.health()["waiting"] == 6)
        engine.start()
        answers = [future.result() for future in sent]
        assert [answer.status_code for answer in answers] == [200, 200, 503, 200, 200, 200]
        assert answers[2].json()["error"]["code"] == "out_of_memory"
        with pytest.raises(ValueError, match="out of memory with up to 51 tokens: set a smaller max_tokens"):
            chat(str(client.base_url), "one", ask("x" * 40)[0], SamplingParams(max_tokens=8))


def test_a_client_that_goes_away_frees_its_place(
    conf: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation of minutes, whose reader leaves: the next request is answered at once."""
    long = {"init": {"architecture": {**tiny, "max_position_embeddings": 200_000}}, "model_id": "long"}
    (conf / "model" / "long.yaml").write_text(yaml.safe_dump(long))
    monkeypatch.setattr("llsflow.models.local._end_tokens", lambda model, tokenizer: frozenset())
    engine = Engine(max_models=1, batch_size=8, device="cpu")
    engine.start()
    with served(engine, conf) as client:
        endless = body("x", model="long", max_tokens=150_000)
        with pytest.raises(httpx.ReadTimeout):
            client.post(URL, json=endless, timeout=httpx.Timeout(PATIENCE_SECONDS, read=1.0))
        until(lambda: engine.counts.dropped == 1)
        assert client.post(URL, json=body("x", model="long")).status_code == 200
        assert engine.counts.answered == 1


def test_damaged_numbers_are_told_to_the_one_who_asked(
    client: httpx.Client, conf: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "nan"))
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][5 + ord("Z")] = float("nan")
    save_file(
        {name: tensor.to(torch.float32) for name, tensor in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    (conf / "model" / "nan.yaml").write_text(yaml.safe_dump({"model_id": "nan", "path": str(folder)}))
    base = str(client.base_url)
    with pytest.raises(ValueError, match="not a number"):
        chat(base, "nan", ask("Z")[0], SamplingParams(max_tokens=3))
    assert isinstance(chat(base, "nan", ask("a")[0], SamplingParams(max_tokens=3)), str)


def test_what_a_caller_is_told(client: httpx.Client) -> None:
    base, sampling = str(client.base_url), SamplingParams(max_tokens=8)
    with pytest.raises(NotFoundError, match="no model 'nine'"):
        chat(base, "nine", ask("x")[0], sampling)
    with pytest.raises(ValueError, match="context is 96"):
        chat(base, "one", ask("x" * 90)[0], sampling)
    with pytest.raises(UnavailableError, match="'torn' cannot be loaded"):
        chat(base, "torn", ask("x")[0], sampling)
    with pytest.raises(UnavailableError, match=r"no answer within 0\.0001 s"):
        chat(base, "one", ask("x")[0], sampling, timeout=0.0001)
    with pytest.raises(UnavailableError, match="does not answer"):
        chat("http://127.0.0.1:9", "one", ask("x")[0], sampling)


def test_an_engine_that_cannot_start_says_so(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llsflow.models.decode", None)
    engine = Engine(max_models=1, batch_size=8, device="cpu")
    with served(engine, conf) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, URL, json=body("x"))
        until(lambda: engine.health()["waiting"] == 1)
        engine.start()
        for answer in (waiting.result(), client.post(URL, json=body("x"))):
            assert answer.status_code == 503
            assert "cannot start" in answer.json()["error"]["message"]
        health = client.get("/health").json()
        assert health["status"] == "failed"
        assert "llsflow.models.decode" in health["why"]


def test_answers_are_not_held_back_by_nagle() -> None:
    """Asyncio sets TCP_NODELAY on what is accepted from a socket that names its protocol, and on no other."""
    with listen(0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_process_answers_before_torch_is_there_and_ends_at_sigterm(conf: Path) -> None:
    command = [sys.executable, "-m", "llsflow.models.engine", "--device", "cpu", "--config-dir", str(conf)]
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=root) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            assert client.get("/health").json()["status"] == "starting"
            assert client.post(URL, json=body("x")).status_code == 200, "a request waits for the start"
            assert client.get("/health").json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_SECONDS) == 0
