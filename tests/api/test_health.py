"""How the server says that it is."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

import httpx
import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.health import HealthPart, PartState
from tests.api.conftest import Served


def test_the_official_client(served: Served) -> None:
    assert served.client.inspect.health().status == "OK"
    assert served.client.inspect.version().version == version("llsflow")


def test_every_part_is_told_with_its_reason(served: Served) -> None:
    since = datetime(2026, 11, 23, tzinfo=UTC)
    served.services.health = lambda: {"engine": HealthPart(state=PartState.DOWN, since=since, why="out of memory")}
    parts = served.http.get("/v1/health").json()["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {"api": "ok", "store": "ok", "engine": "down"}
    assert parts["engine"] == {"state": "down", "since": "2026-11-23T00:00:00Z", "why": "out of memory", "url": None}


def test_a_store_that_does_not_answer_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr(served.services.store.benchmarks, "list", fail)
    answer = served.http.get("/v1/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "OK")
    assert answer.json()["parts"]["store"]["state"] == "down"
    assert served.http.get("/v1alpha/eval/benchmarks").status_code == 503


def test_old_clients_headers_are_no_gate(http: httpx.Client) -> None:
    headers = {"X-LlamaStack-Client-Version": "0.2.23", "X-LlamaStack-Provider-Data": "{"}
    assert http.get("/v1/version", headers=headers).status_code == 200
