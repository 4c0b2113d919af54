"""What a worker needs on the server is made once, and brought up to date where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows import provision
from flows.rest import PrefectApi


@pytest.fixture
def api(served: Path) -> Iterator[PrefectApi]:
    found = PrefectApi()
    yield found
    found.close()


@pytest.fixture
def pool(api: PrefectApi) -> str:
    return f"pool-{uuid4().hex[:8]}"


def automations(api: PrefectApi) -> list[Any]:
    body = {"automations": {"name": {"any_": [provision.HEARTBEAT_AUTOMATION]}}}
    return list(api.post("/automations/filter", body))


def test_the_pool_is_a_process_pool_and_made_once(api: PrefectApi, pool: str) -> None:
    assert provision.ensure_pool(api, pool) == "process"
    first = api.get(f"/work_pools/{pool}")
    assert provision.ensure_pool(api, pool) == "process"
    assert api.get(f"/work_pools/{pool}")["id"] == first["id"]


def test_our_template_says_what_prefects_worker_knows() -> None:
    from prefect.workers.process import ProcessWorker

    theirs = ProcessWorker.get_default_base_job_template()
    assert theirs["job_configuration"].items() <= provision.PROCESS_TEMPLATE["job_configuration"].items()
    assert set(provision.PROCESS_TEMPLATE["variables"]["properties"]) == set(theirs["variables"]["properties"])


def test_our_parameters_are_the_flows() -> None:
    import inspect

    from flows.entry import llsflow

    assert [*inspect.signature(llsflow.fn).parameters] == [*provision.PARAMETERS["properties"]]


def test_the_deployment_is_made_once_and_stays_as_it_is(
    api: PrefectApi, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLSFLOW_STORE_URL", "postgresql://user:secret@host/db")
    provision.ensure_jobs_deployment(api, pool)
    path = f"/deployments/name/llsflow/{pool}-jobs"
    first = api.get(path)
    assert first["work_pool_name"] == pool
    assert first["job_variables"]["working_dir"] == str(Path.cwd())
    assert "secret" not in str(first)
    provision.ensure_jobs_deployment(api, pool)
    assert api.get(path) == first, "nothing was written"
    monkeypatch.chdir(tmp_path)
    provision.ensure_jobs_deployment(api, pool)
    second = api.get(path)
    assert second["id"] == first["id"]
    assert second["job_variables"]["working_dir"] == str(tmp_path)


def test_the_heartbeat_automation_is_there_once_and_kept_up_to_date(api: PrefectApi) -> None:
    provision.ensure_heartbeat_automation(api)
    (first,) = automations(api)
    assert first["enabled"]
    assert first["trigger"]["within"] >= 3 * provision.HEARTBEAT_SECONDS >= 90
    provision.ensure_heartbeat_automation(api)
    (again,) = automations(api)
    assert again == first
    api.request("PATCH", f"/automations/{first['id']}", {"enabled": False})
    api.post("/automations/", {name: first[name] for name in ("name", "trigger", "actions", "enabled")})
    provision.ensure_heartbeat_automation(api)
    (mended,) = automations(api)
    assert mended["enabled"]


def test_the_heartbeat_is_that_of_the_worker() -> None:
    from prefect.flow_engine import MINIMUM_HEARTBEAT_INTERVAL

    assert int(provision.worker_environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) >= MINIMUM_HEARTBEAT_INTERVAL
