"""Services behind tools: keys stay secret, answers are bounded, errors are for a model to read."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from llsflow.errors import UnavailableError
from llsflow.tools.base import ToolError
from llsflow.tools.service import Answer, Service
from tests.patience import PATIENCE_SECONDS
from tests.tools.recorded import Asked, Recorded, Reply, recorded

KEY = "sk-very-secret-0123"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", KEY)


def ask(url: str, most_bytes: int = 1000, key: str | None = "THEIR_KEY") -> Answer:
    """Return the answer to one request."""

    async def talk() -> Answer:
        service = Service("the shop", url, key, most_bytes=most_bytes)
        try:
            return await service.ask("GET", "/goods", headers={"x-key": service.key()})
        finally:
            await service.close()

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply({"error": {"message": KEY}}, 401), "the shop refuses the key of THEIR_KEY (HTTP 401)"),
        (Reply(b"", 403), "the shop refuses the key of THEIR_KEY (HTTP 403)"),
        (Reply(b"", 429), "the shop takes no more requests for now (HTTP 429): try again later"),
        (Reply(b"", 302, {"Location": "/v1/other"}), "redirects (HTTP 302), which is not followed: mend base_url"),
        (
            Reply({"error": {"message": f"no {KEY}\n  here"}}, 400),
            "the shop answers with HTTP 400: no … here",
        ),
        (Reply({"error": {"code": "VALIDATION", "detail": "count is too large"}}, 422), "HTTP 422: count is too large"),
        (Reply({"error": "broken"}, 500), "the shop answers with HTTP 500"),
        (Reply(b"[" * 100_000, 500), "answers with more than 1,000 bytes"),
        (Reply(b"[" * 900, 500), "the shop answers with HTTP 500"),
        (Reply(b"x" * 1001), "the shop answers with more than 1,000 bytes"),
    ],
)
def test_what_is_no_answer_is_told_without_the_key(reply: Reply, sentence: str) -> None:
    with recorded(reply) as site, pytest.raises(ToolError) as raised:
        ask(site.url)
    assert str(raised.value).endswith(sentence)
    assert KEY not in str(raised.value)
    assert len(site.asked) == 1


def test_a_service_that_is_gone_is_told_without_its_address() -> None:
    with recorded(Reply({})) as site:
        ask(site.url)
    with pytest.raises(ToolError, match=r"^the shop cannot be reached \(ConnectError\)$"):
        ask(site.url)


def test_a_missing_or_broken_key_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", " ")
    with pytest.raises(UnavailableError, match="the shop: THEIR_KEY is not set: export THEIR_KEY=…"):
        ask("http://127.0.0.1:1")
    monkeypatch.setenv("THEIR_KEY", "secret\r\nx: y")
    with pytest.raises(UnavailableError, match="THEIR_KEY holds characters that no key has") as raised:
        ask("http://127.0.0.1:1")
    assert "secret" not in str(raised.value)


def test_no_log_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), recorded(Reply({})) as site:
        ask(site.url)
    assert site.asked[0].headers["x-key"] == KEY
    assert caplog.records
    assert KEY not in caplog.text


def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with recorded(Reply({"a": 1})) as site:
        assert ask(site.url).json("the shop") == {"a": 1}


def test_other_machines_are_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(Reply({"a": 1})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert ask("http://shop.invalid/v1").status == 200


def test_a_call_that_is_cancelled_leaves_no_request() -> None:
    hold, there = threading.Event(), threading.Event()

    def wait(_: Asked) -> Reply:
        there.set()
        hold.wait(PATIENCE_SECONDS)
        return Reply({})

    async def talk(site: Recorded) -> None:
        service = Service("the shop", site.url, None, most_bytes=10)
        task = asyncio.create_task(service.ask("GET", "/", headers={}))
        await asyncio.to_thread(there.wait, PATIENCE_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await service.close()
        await service.close()

    with recorded(wait) as site:
        asyncio.run(talk(site))
        hold.set()


def test_what_is_no_json_is_told() -> None:
    for content in (b"<html>", b"", b"\xff", b"[" * 200_000):
        with pytest.raises(ToolError, match="the shop answers with something that is no JSON"):
            Answer(200, content).json("the shop")
