"""What must be on a Prefect server before a worker can do jobs: pool, deployment, and who notices dead runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .names import FLOW, TAG, jobs_deployment
from .rest import PrefectApi, RefusedError

HEARTBEAT_SECONDS = 30
"""Between two signs of life of a flow run; Prefect takes no less."""

SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
"""After so long without one a flow run counts as dead."""

HEARTBEAT_AUTOMATION = "llsflow: a run without a heartbeat has crashed"

_VARIABLES = {
    "name": {"title": "Name", "anyOf": [{"type": "string"}, {"type": "null"}]},
    "env": {
        "title": "Environment Variables",
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "labels": {"title": "Labels", "type": "object", "additionalProperties": {"type": "string"}},
    "command": {"title": "Command", "anyOf": [{"type": "string"}, {"type": "null"}]},
    "stream_output": {"title": "Stream Output", "type": "boolean", "default": True},
    "working_dir": {"title": "Working Directory", "anyOf": [{"type": "string"}, {"type": "null"}]},
}

PROCESS_TEMPLATE = {
    "job_configuration": {name: f"{{{{ {name} }}}}" for name in _VARIABLES},
    "variables": {"type": "object", "properties": _VARIABLES},
}
"""What a deployment may say about the process of its runs: as Prefect's own process worker has it."""

PARAMETERS = {
    "type": "object",
    "properties": {
        "job_id": {"type": "string", "title": "job_id", "description": "a job of the store"},
        "experiment": {"type": "string", "title": "experiment", "description": "a name of conf/experiment"},
        "overrides": {"type": "array", "items": {"type": "string"}, "title": "overrides"},
        "config_dir": {"type": "string", "title": "config_dir"},
    },
}
"""What the form on a deployment's page asks for."""


def entrypoint() -> str:
    """Return where the flow is, in a checkout or in a wheel."""
    return f"{__package__}.entry.llsflow"


def command() -> str:
    """Return the command that runs a flow run on this machine."""
    return f'"{sys.executable}" -m {__package__}.engine'


def ensure_pool(api: PrefectApi, name: str) -> str:
    """Make the work pool unless it is there; return its type.

    Raises:
        UnavailableError: Prefect does not answer.
        RefusedError: it will not have it.
    """
    try:
        found = api.get(f"/work_pools/{name}")
    except RefusedError as refused:
        if refused.status != 404:
            raise
        body = {
            "name": name,
            "type": "process",
            "description": "Runs of llsflow, as processes of one machine.",
            "base_job_template": PROCESS_TEMPLATE,
        }
        try:
            found = api.post("/work_pools/", body)
        except RefusedError as taken:
            if taken.status != 409:  # another process was faster
                raise
            found = api.get(f"/work_pools/{name}")
    return str(found["type"])


def flow_id(api: PrefectApi) -> str:
    """Return the id of the flow of every run, made where it is not there; raises as `ensure_pool` does."""
    return str(api.post("/flows/", {"name": FLOW, "tags": [TAG]})["id"])


def process_variables(pool_type: str, folder: Path) -> dict[str, Any]:
    """Return what a deployment says about its processes: only process pools know these words."""
    if pool_type != "process":
        return {}
    return {"command": command(), "working_dir": str(folder), "stream_output": True}


def ensure_jobs_deployment(api: PrefectApi, work_pool: str) -> None:
    """Make the deployment whose runs are jobs, or bring it up to date; raises as `ensure_pool` does.

    Its processes start in this process's folder and inherit the worker's environment: nothing of that, which may hold
    passwords, is stored with the deployment.
    """
    wanted = {
        "name": jobs_deployment(work_pool),
        "flow_id": flow_id(api),
        "entrypoint": entrypoint(),
        "work_pool_name": work_pool,
        "tags": [TAG],
        "description": "Jobs of `llsflow serve`: made by its worker, run by its API.",
        "parameters": {},
        "parameter_openapi_schema": PARAMETERS,
        "enforce_parameter_schema": False,
        "job_variables": process_variables(ensure_pool(api, work_pool), Path.cwd()),
    }
    try:
        found = api.get(f"/deployments/name/{FLOW}/{wanted['name']}")
    except RefusedError as refused:
        if refused.status != 404:
            raise
        found = {}
    if not _holds(found, wanted):
        # The same request makes a deployment and changes it, and leaves its runs alone: they have no schedule.
        api.post("/deployments/", wanted)


def has_jobs_deployment(api: PrefectApi, work_pool: str) -> bool:
    """Return whether the server still has it: its database may have been made anew; raises as `ensure_pool` does."""
    try:
        api.get(f"/deployments/name/{FLOW}/{jobs_deployment(work_pool)}")
    except RefusedError as refused:
        if refused.status != 404:
            raise
        return False
    return True


def ensure_heartbeat_automation(api: PrefectApi) -> None:
    """Have the server call a run crashed whose process gives no sign of life; raises as `ensure_pool` does."""
    wanted = {
        "name": HEARTBEAT_AUTOMATION,
        "description": "Its process was killed, or its machine went down. Made by llsflow.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "after": ["prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.*"],
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            # Only ours: the server may be shared.
            "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": SILENCE_SECONDS,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": "Crashed",
                "message": f"No sign of life for {SILENCE_SECONDS} seconds: its process was killed, "
                "or its machine went down.",
            }
        ],
    }
    found = api.post("/automations/filter", {"automations": {"name": {"any_": [HEARTBEAT_AUTOMATION]}}})
    for double in found[1:]:
        api.request("DELETE", f"/automations/{double['id']}")
    if not found:
        api.post("/automations/", wanted)
    elif not _holds(found[0], wanted):
        api.request("PUT", f"/automations/{found[0]['id']}", wanted)


def _holds(found: Any, wanted: Any) -> bool:
    """Return whether everything that is wanted is there, whatever else is."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return False
        pairs = zip(sorted(found, key=str), sorted(wanted, key=str), strict=True)
        return all(_holds(one, other) for one, other in pairs)
    return bool(found == wanted)


def worker_environment() -> dict[str, str]:
    """Return what a worker sets for itself and its flow runs before it imports Prefect."""
    return {
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    }
