"""The moderations endpoint: what is sent, what is flagged, and that nothing goes through where it cannot be asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pydantic import ValidationError

from llsflow.errors import UnavailableError
from llsflow.schema.agents import SafetyViolation
from llsflow.schema.shields import ShieldConfig
from llsflow.shields import NamedShield, Said
from llsflow.shields.moderation import ModerationShield
from tests.http_server import serve
from tests.scripted import Answer, Scripted, scripted
from tests.shields.making import shield

KEY = "sk-very-secret"
HARM = {"violence": True, "hate": False, "illicit": None, "sexual": True}
SCORES = {"violence": 0.98, "hate": 0.2, "illicit": None, "sexual": 0.7}


def result(**changes: Any) -> dict[str, Any]:
    return {"flagged": True, "categories": HARM, "category_scores": SCORES, **changes}


FINE = result(flagged=False, categories=dict.fromkeys(HARM, False))


def body(*results: Any) -> dict[str, Any]:
    return {"id": "modr-1", "model": "omni-moderation-latest", "results": list(results)}


def of(url: str, **provider: Any) -> NamedShield:
    config = {"type": "moderation", "base_url": url, **provider}
    return shield(config, violation_level="info", user_message="Not here.")


def look(made: NamedShield, *texts: str) -> SafetyViolation | None:
    async def once() -> SafetyViolation | None:
        try:
            return await made.look([Said("user", text) for text in texts or ("hit him",)])
        finally:
            await made.close()

    return asyncio.run(once())


@pytest.fixture(scope="module")
def _server() -> Iterator[Scripted]:
    with scripted(lambda *_: "") as script:
        yield script


@pytest.fixture
def script(_server: Scripted) -> Scripted:
    """Return a server that flags nothing, and has not been asked yet."""
    for kept in (_server.sent, _server.paths, _server.headers):
        kept.clear()
    _server.say = lambda *_: Answer(body=body(FINE))
    return _server


def asked(script: Scripted, answer: Any, **provider: Any) -> SafetyViolation | None:
    script.say = lambda *_: answer if isinstance(answer, Answer) else Answer(body=answer)
    return look(of(script.url, **provider))


def test_only_the_last_message_is_sent_by_the_protocol(script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODERATION_KEY", f" {KEY}\n")
    assert look(of(f"{script.url}/", model="omni", api_key_env="MODERATION_KEY"), "before", "now é") is None
    assert look(of(script.url), "now") is None
    assert script.sent == [{"input": "now é", "model": "omni"}, {"input": "now"}]
    assert script.paths == ["/v1/moderations"] * 2
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in script.headers[1]


def test_what_is_flagged_is_told_with_its_scores(script: Scripted) -> None:
    assert asked(script, body(result())) == SafetyViolation.model_validate(
        {
            "violation_level": "info",
            "user_message": "Not here.",
            "metadata": {"categories": {"violence": 0.98, "sexual": 0.7}},
        }
    )


@pytest.mark.parametrize(
    ("results", "counted", "categories"),
    [
        ([FINE], None, None),
        ([FINE, result()], None, {"violence": 0.98, "sexual": 0.7}),
        ([result(categories={})], None, {}),
        ([result(flagged=False)], None, {"violence": 0.98, "sexual": 0.7}),
        ([result(category_scores={})], ["sexual"], {"sexual": None}),
        ([result()], ["sexual", "hate"], {"sexual": 0.7}),
        ([result()], ["hate", "illicit"], None),
        ([FINE], ["sexual"], None),
    ],
)
def test_the_categories_that_count(
    script: Scripted, results: list[Any], counted: list[str] | None, categories: dict[str, float] | None
) -> None:
    found = asked(script, body(*results), categories=counted)
    assert (found and found.metadata) == (None if categories is None else {"categories": categories})


def test_a_category_that_the_server_does_not_know_is_told(script: Scripted) -> None:
    with pytest.raises(UnavailableError, match="found voilence, allowed: hate, illicit, sexual, violence"):
        asked(script, body(FINE), categories=["sexual", "voilence"])


def test_an_empty_message_is_not_sent(script: Scripted) -> None:
    assert look(of(script.url), "bad", " \n") is None
    assert script.sent == []


@pytest.mark.parametrize(
    "told",
    [
        {},
        [],
        "fine",
        body(),
        {"results": None},
        body(result(flagged="no")),
        body(result(flagged=None)),
        body(result(categories={"hate": "no"})),
        body(result(categories=["hate"])),
        body(result(category_scores={"hate": "high"})),
        body(result(category_scores={"hate": float("nan")})),
        body({"flagged": False}),
        body(FINE, "fine"),
        {"choices": [{"message": {"content": "safe"}}]},
    ],
)
def test_an_answer_that_is_no_moderation_lets_nothing_through(script: Scripted, told: Any) -> None:
    with pytest.raises(UnavailableError, match=r"shield given: .*/moderations answered with something"):
        asked(script, told)


def test_an_answer_that_is_no_json_lets_nothing_through() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serve(Page) as port, pytest.raises(UnavailableError, match="is no moderation"):
        look(of(f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("status", [201, 400, 404, 429, 500])
def test_another_status_lets_nothing_through(script: Scripted, status: int) -> None:
    with pytest.raises(UnavailableError, match=f"answered with HTTP {status}, allowed: 200"):
        asked(script, Answer(status=status, body=body(FINE)))


def test_a_redirect_is_not_followed(script: Scripted) -> None:
    away = Answer(status=307, headers={"Location": f"{script.url}/other"}, body={})
    with pytest.raises(UnavailableError, match="HTTP 307"):
        asked(script, away)
    assert script.paths == ["/v1/moderations"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_and_never_repeated(
    script: Scripted, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("MODERATION_KEY", KEY)
    with pytest.raises(UnavailableError, match=r"refuses the key of MODERATION_KEY \(HTTP 40") as told:
        asked(script, Answer(text=f"Incorrect API key provided: {KEY}", status=status), api_key_env="MODERATION_KEY")
    assert KEY not in str(told.value)
    with pytest.raises(UnavailableError, match="without a key: set api_key_env"):
        asked(script, Answer(status=status))


@pytest.mark.parametrize("value", [None, "", " "])
def test_a_missing_key_is_named_before_anything_is_sent(
    script: Scripted, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MODERATION_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MODERATION_KEY", value)
    with pytest.raises(UnavailableError, match="environment variable MODERATION_KEY is not set"):
        look(of(script.url, api_key_env="MODERATION_KEY"))
    assert script.sent == []


@pytest.mark.parametrize("value", [f"{KEY}\nX-Other: 1", f"{KEY}é"])
def test_a_key_that_is_none_is_never_repeated(script: Scripted, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MODERATION_KEY", value)
    with pytest.raises(UnavailableError, match="MODERATION_KEY holds signs") as told:
        asked(script, body(FINE), api_key_env="MODERATION_KEY")
    assert KEY not in repr((told.value, told.value.__cause__, told.value.__context__))


def test_a_server_that_is_not_there_lets_nothing_through() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match=r"shield given: http://127.0.0.1:\d+/v1/moderations: "):
            look(of(f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("127.0.0.1", "/v1/moderations"),
        ("localhost", "/v1/moderations"),
        ("elsewhere.example", "http://elsewhere.example:{port}/v1/moderations"),
    ],
)
def test_an_address_of_this_machine_is_never_reached_through_a_proxy(
    script: Scripted, monkeypatch: pytest.MonkeyPatch, host: str, path: str
) -> None:
    port = script.url.rpartition(":")[2].removesuffix("/v1")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert look(of(f"http://{host}:{port}/v1")) is None
    assert script.paths == [path.format(port=port)]


def test_connections_are_made_when_first_needed_kept_and_closed(script: Scripted) -> None:
    made = of(script.url).shield
    assert isinstance(made, ModerationShield)

    async def use() -> None:
        assert made._client is None
        await made.close()
        for _ in range(2):
            await made.look([Said("user", "a")])
            first = made._client
            await made.look([Said("user", "a")])
            assert first is made._client is not None
            await made.close()
            assert first.is_closed
            assert made._client is None

    asyncio.run(use())
    assert len(script.sent) == 4


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ({"api_key_env": "sk-123"}, "never the key"),
        ({"base_url": "api.openai.com"}, "is no address"),
        ({"base_url": "ftp://api.openai.com"}, "is no address"),
        ({"base_url": "https://api.openai.com/v1?x=1"}, "leave out what begins with"),
        ({"base_url": "https://me:pass@api.openai.com"}, "must not hold a password"),
        ({"categories": []}, "at least 1 item"),
    ],
)
def test_what_cannot_act_is_refused(provider: dict[str, Any], said: str) -> None:
    config = {"shield_id": "a", "provider": {"type": "moderation", "base_url": "http://a", **provider}}
    with pytest.raises(ValidationError, match=said) as told:
        ShieldConfig.model_validate(config)
    assert "sk-123" not in told.value.errors()[0]["msg"]
