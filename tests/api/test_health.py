"""How the server says that it is."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from importlib.metadata import version

import httpx
import pytest

from llsflow.api.parts import FRESH_SECONDS, STALE_SECONDS, Parts
from llsflow.errors import UnavailableError
from llsflow.schema.health import HealthPart, PartState
from tests.api.conftest import Served
from tests.patience import PATIENCE_SECONDS


def test_the_official_client(served: Served) -> None:
    assert served.client.inspect.health().status == "OK"
    assert served.client.inspect.version().version == version("llsflow")


def test_every_part_is_told_with_its_reason(served: Served) -> None:
    since = datetime(2026, 11, 23, tzinfo=UTC)
    served.services.parts = Parts(
        served.services.store, lambda: {"engine": HealthPart(state=PartState.DOWN, since=since, why="out of memory")}
    )
    parts = served.http.get("/v1/health").json()["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {"api": "ok", "store": "ok", "engine": "down"}
    assert parts["engine"] == {"state": "down", "since": "2026-11-23T00:00:00Z", "why": "out of memory", "url": None}


def test_a_store_that_does_not_answer_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr(served.services.store, "ask", fail)
    monkeypatch.setattr(served.services.store.benchmarks, "list", fail)
    answer = served.http.get("/v1/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "OK")
    assert answer.json()["parts"]["store"]["state"] == "down"
    assert served.http.get("/v1alpha/eval/benchmarks").status_code == 503


def test_who_asks_often_never_waits_and_who_asks_again_later_is_told_what_changed(served: Served) -> None:
    asked: list[str] = []
    go_on = threading.Event()

    def look() -> dict[str, HealthPart]:
        asked.append("")
        assert len(asked) == 1 or go_on.wait(PATIENCE_SECONDS)
        return {"engine": HealthPart(state=PartState.OK if len(asked) == 1 else PartState.DOWN)}

    def state() -> str:
        return str(served.http.get("/v1/health").json()["parts"]["engine"]["state"])

    parts = served.services.parts = Parts(served.services.store, look)
    assert [state() for _ in range(3)] == ["ok"] * 3
    assert parts._found
    assert len(asked) == 1
    parts._found = (parts._found[0] - FRESH_SECONDS, parts._found[1])
    assert state() == "ok", "another look is under way, and nobody waits for it"
    go_on.set()
    parts._found = (parts._found[0] - STALE_SECONDS, parts._found[1])
    assert state() == "down"
    assert len(asked) == 2


def test_old_clients_headers_are_no_gate(http: httpx.Client) -> None:
    headers = {"X-LlamaStack-Client-Version": "0.2.23", "X-LlamaStack-Provider-Data": "{"}
    assert http.get("/v1/version", headers=headers).status_code == 200
