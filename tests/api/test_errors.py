"""One body for every error, whatever goes wrong and wherever."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from llsflow.api.deps import Services
from llsflow.api.errors import STATUS, answer, without_paths
from llsflow.errors import (
    ConflictError,
    LlsflowError,
    NotFoundError,
    StorageError,
    TrainingError,
    UnavailableError,
)
from llsflow.schema.server import ServerConfig
from tests.api.conftest import Served, serve
from tests.api.errors import assert_error
from tests.patience import PATIENCE_SECONDS

DATASETS = "/v1beta/datasets"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/nothing", "/v1beta", "/v2/datasets", "/v1beta/dataset", "/v1/nothing"])
def test_where_nothing_is(http: httpx.Client, path: str) -> None:
    assert_error(http.get(path), 404, "/docs lists")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", DATASETS, "GET, POST"),
        ("PATCH", f"{DATASETS}/x", "DELETE, GET"),
        ("POST", "/v1beta/datasetio/iterrows/x", "GET"),
        ("DELETE", "/v1alpha/post-training/jobs", "GET"),
        ("GET", "/v1/datasetio/append-rows/x", "POST"),
    ],
)
def test_methods_that_are_not_allowed(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    refused = http.request(method, path)
    assert_error(refused, 405, f"allowed is {allowed}")
    assert refused.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "body: is not JSON: "),
        (b'{"purpose": NaN}', "body: is not JSON that can be read: NaN"),
        (b'{"purpose": -Infinity}', "-Infinity"),
        (b'{"purpose": 1' + b"0" * 5000 + b"}", "body: is not JSON that can be read"),
        (b'{"purpose": ' + b"[" * 50_000, "body: is nested too deeply"),
        (b'{"purpose": "\xff"}', "body: is not UTF-8 at byte 13"),
        (b"[]", "body: found a list, allowed: an object"),
        (b"null", "body: found null"),
        (b"true", "body: found true or false"),
        (b"5", "body: found a number"),
        (b"  ", "purpose: is missing"),
    ],
)
def test_bodies_that_are_no_object(http: httpx.Client, content: bytes, told: str) -> None:
    assert_error(http.post(DATASETS, content=content, headers=JSON), 400, told)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "Content-Type: none is given, allowed: application/json"),
        ({"Content-Type": "text/plain"}, "Content-Type: found 'text/plain'"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "application/x-www-form-urlencoded"),
        ({**JSON, "Content-Encoding": "gzip"}, "Content-Encoding: found 'gzip', allowed: none"),
    ],
)
def test_bodies_of_another_kind(http: httpx.Client, headers: dict[str, str], told: str) -> None:
    assert_error(http.post(DATASETS, content=b"{}", headers=headers), 415, told)


def test_the_content_type_may_have_parameters(http: httpx.Client) -> None:
    refused = http.post(DATASETS, content=b"{}", headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert_error(refused, 400, "purpose: is missing")


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_that_are_too_large(services: Services, chunked: bool) -> None:
    services.server = ServerConfig(port=0, max_body_bytes=100_000)
    body = b'{"rows": [' + b" " * 3_000_000 + b"]}"
    for served in serve(services):
        content: Any = iter([body[i : i + 50_000] for i in range(0, len(body), 50_000)]) if chunked else body
        assert_error(served.http.post(DATASETS, content=content, headers=JSON), 413, "larger than 100,000 bytes")
        assert served.http.get("/v1/version").status_code == 200


def test_a_client_that_goes_away_leaves_no_trace(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llsflow.api")
    port = httpx.URL(served.url).port
    assert port
    with socket.create_connection(("127.0.0.1", port)) as line:
        lines = [f"POST {DATASETS} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 99"]
        line.sendall("\r\n".join([*lines, "", '{"purpose"']).encode())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "went away" not in caplog.text:
        assert time.monotonic() < deadline
        assert served.http.get("/v1/version").status_code == 200
    assert "reference" not in caplog.text


def test_what_is_not_the_users_to_mend_says_nothing_but_where_to_look(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("/etc/secret: sk-1234")

    monkeypatch.setattr(served.services.jobs, "models", fail)
    error = assert_error(served.http.get("/v1/models"), 500, "the server's log has it as ")
    assert "secret" not in error.detail
    reference = error.detail.rpartition(" ")[2]
    (record,) = [record for record in caplog.records if reference in record.getMessage()]
    assert record.exc_info
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (NotFoundError("x"), 404, {}),
        (ConflictError("x"), 409, {"x-should-retry": "false"}),
        (UnavailableError("x"), 503, {"retry-after": "5"}),
        (StorageError("x"), 507, {}),
        (TrainingError("x"), 500, {}),
    ],
)
def test_each_kind_has_its_status(error: Exception, status: int, headers: dict[str, str]) -> None:
    found = answer(error, "/p")
    assert found.status_code == status
    assert {name: found.headers.get(name) for name in headers} == headers


def test_every_error_that_a_request_can_meet_is_known() -> None:
    # those of the engine and of flows never come this far
    ours = [kind for kind in LlsflowError.__subclasses__() if kind.__module__ == LlsflowError.__module__]
    kinds = {kind for kind in ours if not kind.__subclasses__()}
    # training is done by a worker, and Ctrl-C is nobody's request
    assert {kind.__name__ for kind in kinds - set(STATUS)} == {"GateError", "Stopped", "TrainingError"}


def test_no_folder_of_this_machine_is_told(llsflow_home: Path) -> None:
    told = without_paths(f"cannot write to {llsflow_home}/store.db or {Path.cwd()}/x")
    assert told == "cannot write to LLSFLOW_HOME/store.db or ./x"


def test_no_answer_tells_one(llsflow_home: Path) -> None:
    told = bytes(answer(StorageError(f"cannot write to {llsflow_home}: the disk is full"), "/p").body)
    assert b"cannot write to LLSFLOW_HOME: the disk is full" in told


def test_a_long_message_ends(http: httpx.Client) -> None:
    rows = [{"x" * 5000: 1}] * 30
    body = {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": rows}}
    assert len(http.post(DATASETS, json=body).json()["detail"]) < 11_000


def test_names_that_are_no_unicode_can_be_told(http: httpx.Client) -> None:
    refused = http.post(DATASETS, content=b'{"purpose": "\\ud800", "\\ud801": 1}', headers=JSON)
    assert_error(refused, 400, "purpose: found")
    rows = b'{"purpose": "eval/question-answer", "source": {"type": "rows", "rows": [{"question": "a", "answer": "b"}]}'
    taken = http.post(DATASETS, content=rows + b', "\\ud801": 1}', headers=JSON)
    assert taken.headers["x-ignored-fields"] == "?"


def test_a_large_body_leaves_no_file(http: httpx.Client, llsflow_home: Path) -> None:
    rows = [{"question": "?" * 1000, "answer": "!"}] * 2000
    body = {"dataset_id": "large", "purpose": "eval/question-answer", "source": {"type": "rows", "rows": rows}}
    assert http.post(DATASETS, json=body).json()["num_rows"] == 2000
    assert http.post("/v1alpha/eval/benchmarks", json={"benchmark_id": "x" * 2_000_000}).status_code == 400
    assert list((llsflow_home / "incoming").iterdir()) == []
