"""Jobs handed to Prefect over HTTP: once each, found again, cancelled; and its absence told in a sentence."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from flows import provision
from flows.rest import PrefectApi, RefusedError
from flows.submit import PrefectSubmitter
from llsflow.errors import UnavailableError
from llsflow.plan import FlowState, FlowStatus
from tests.http_server import Handler, serve


@pytest.fixture
def api(served: Path) -> Iterator[PrefectApi]:
    found = PrefectApi()
    yield found
    found.close()


@pytest.fixture
def submitter(api: PrefectApi) -> PrefectSubmitter:
    """One whose pool has no worker: what is submitted waits."""
    provision.ensure_jobs_deployment(api, "nobody")
    return PrefectSubmitter("nobody", api)


def test_a_job_is_submitted_once_for_each_attempt(submitter: PrefectSubmitter, api: PrefectApi) -> None:
    job = f"job/{uuid4()}"
    first = submitter.submit(job, 1, ["eval"])
    assert submitter.submit(job, 1) == first
    second = submitter.submit(job, 2)
    assert second != first
    run = api.get(f"/flow_runs/{first}")
    assert run["parameters"] == {"job_id": job}
    assert run["name"] == job
    assert set(run["tags"]) == {"llsflow", "eval"}
    statuses = submitter.statuses([first, second])
    page = f"{(api.url or '').removesuffix('/api')}/runs/flow-run/{first}"
    assert statuses[first] == FlowStatus(FlowState.WAITING, "", page)
    assert statuses[second].state is FlowState.WAITING


def test_many_threads_submit_the_same_job_once(submitter: PrefectSubmitter) -> None:
    job = f"job-{uuid4()}"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(submitter.submit(job, 1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_waiting_job_is_cancelled_at_once(submitter: PrefectSubmitter) -> None:
    run = submitter.submit(f"job-{uuid4()}", 1)
    submitter.cancel(run)
    assert submitter.statuses([run])[run].state is FlowState.CANCELLED
    submitter.cancel(run)
    assert submitter.statuses([run])[run].state is FlowState.CANCELLED


def test_more_runs_than_one_request_tells(submitter: PrefectSubmitter) -> None:
    mine = submitter.submit(f"job-{uuid4()}", 1)
    asked = [str(uuid4()) for _ in range(450)] + [mine]
    found = submitter.statuses(asked)
    assert [*found] == asked
    assert found[mine].state is FlowState.WAITING
    assert {found[other].state for other in asked[:-1]} == {FlowState.UNKNOWN}


def test_a_run_that_prefect_does_not_know_is_not_cancelled(submitter: PrefectSubmitter) -> None:
    submitter.cancel(str(uuid4()))
    assert dict(submitter.statuses([])) == {}


def test_before_the_first_worker_nothing_is_ready(api: PrefectApi) -> None:
    submitter = PrefectSubmitter(f"pool-{uuid4().hex[:8]}", api)
    assert not submitter.ready()
    with pytest.raises(UnavailableError, match="the worker that makes it has not started yet"):
        submitter.submit("job", 1)


def test_a_deployment_that_was_made_anew_is_found_again(submitter: PrefectSubmitter, api: PrefectApi) -> None:
    assert submitter.ready()
    old = api.get("/deployments/name/llsflow/nobody-jobs")["id"]
    api.request("DELETE", f"/deployments/{old}")
    with pytest.raises(UnavailableError, match="has not started yet"):
        submitter.submit("job", 1)
    provision.ensure_jobs_deployment(api, "nobody")
    job = f"job-{uuid4()}"
    assert submitter.statuses([submitter.submit(job, 1)])


def test_no_server_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    with pytest.raises(UnavailableError, match="`llsflow serve` starts one"):
        PrefectSubmitter().statuses(["x"])
    assert not PrefectSubmitter().ready()
    monkeypatch.setenv("PREFECT_API_URL", "http://somebody:secret@127.0.0.1:9/api")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9/api does not answer: ConnectError") as raised:
        PrefectSubmitter().cancel("x")
    assert "secret" not in str(raised.value)


class _Server(Handler):
    """Answers as the test says, and keeps what it was asked."""

    status = 200
    seen: list[dict[str, str]] = []

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        body = json.dumps({"detail": "as you like"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    """A server that PREFECT_API_URL names."""
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    _Server.seen = []
    with serve(_Server) as port:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        yield _Server


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PREFECT_API_KEY": "k"}, {"Authorization": "Bearer k"}),
        ({"PREFECT_API_AUTH_STRING": "a:b"}, {"Authorization": f"Basic {base64.b64encode(b'a:b').decode()}"}),
        ({"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Gate": "1"}'}, {"X-Gate": "1"}),
        ({"PREFECT_CLIENT_CUSTOM_HEADERS": "nonsense"}, {}),
    ],
)
def test_the_login_of_the_users_own_server(
    another: type[_Server], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    api = PrefectApi()
    assert api.get("/anything") == {"detail": "as you like"}
    assert expected.items() <= another.seen[0].items()
    api.close()


@pytest.mark.parametrize(("status", "error"), [(500, UnavailableError), (401, UnavailableError), (422, RefusedError)])
def test_what_the_server_answers(
    another: type[_Server], monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    monkeypatch.setattr(another, "status", status)
    api = PrefectApi()
    with pytest.raises(error, match=str(status) if error is UnavailableError else "as you like"):
        api.get("/anything")
    api.close()
