"""Schedules on the Prefect server: what it has against what conf/deployment says, and how the one becomes the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llsflow.errors import ConfigError, ConflictError, Mistake
from llsflow.home import home
from llsflow.schema.deployment import Deployment

from . import provision
from .names import FLOW, TAG
from .rest import PrefectApi
from .stack import LocalPrefect

SCHEDULED = "llsflow-deployment"
"""The tag of every deployment that `llsflow deploy` made."""

HOME = "llsflow.home"
"""The label with the LLSFLOW_HOME that a deployment belongs to: servers are shared."""

ANCHOR = "2020-01-01T00:00:00Z"
"""What intervals are counted from, so that the same file always means the same moments."""

_ADDED_START = "DTSTART:20200101T000000\n"
"""What the server puts before a rule that says nothing of its start."""

_PAGE = 200


@dataclass(frozen=True)
class Difference:
    """What is to happen to one deployment."""

    name: str
    kind: str
    """created, changed or removed."""
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Key of the file -> what the server has, and what it will have."""


class Deployer:
    """Brings the server's deployments in line with those of conf/deployment; imports no Prefect."""

    def __init__(self, prefect: LocalPrefect | None = None) -> None:
        self._prefect = prefect or LocalPrefect()
        self._api = PrefectApi(self._prefect)

    def start(self) -> str:
        """Start the local server unless it runs, and return the address of the API once it answers.

        Raises:
            UnavailableError: it does not.
        """
        self._prefect.start()
        return self._prefect.wait()

    def differences(self, wanted: Sequence[Deployment], config_dir: Path | None = None) -> list[Difference]:
        """Return what is to happen, by name; empty: the server has just what is wanted.

        Raises:
            ConfigError: a name is taken by a deployment that is not this LLSFLOW_HOME's.
            UnavailableError: the server does not answer.
        """
        there = self._there()
        self._refuse_others(wanted, there)
        ours = {name: found for name, found in there.items() if _is_ours(found)}
        found = []
        for deployment in wanted:
            new = _fields(deployment, config_dir)
            if deployment.name not in ours:
                found.append(Difference(deployment.name, "created", {key: (None, new[key]) for key in new if new[key]}))
                continue
            old = _fields_of(ours[deployment.name])
            changed = {key: (old.get(key), new[key]) for key in new if old.get(key) != new[key]}
            if changed:
                found.append(Difference(deployment.name, "changed", changed))
        names = {deployment.name for deployment in wanted}
        found += [Difference(name, "removed") for name in ours if name not in names]
        return sorted(found, key=lambda difference: difference.name)

    def apply(
        self, differences: Sequence[Difference], wanted: Sequence[Deployment], config_dir: Path | None = None
    ) -> None:
        """Make the differences go away.

        Raises:
            UnavailableError: the server does not answer.
            RefusedError: it will not have one of them; those before it are done.
            ConflictError: one that is to go has runs under way: it starts no more, and all others are done.
        """
        busy = []
        by_name = {deployment.name: deployment for deployment in wanted}
        there = self._there()
        for difference in differences:
            if difference.kind == "removed":
                if under_way := self._remove(str(there[difference.name]["id"])):
                    busy.append(f"{difference.name} ({', '.join(under_way)})")
                continue
            deployment = by_name[difference.name]
            pool_type = provision.ensure_pool(self._api, deployment.work_pool)
            body = _body(deployment, config_dir, provision.flow_id(self._api), pool_type)
            # One that is there keeps its id and its runs; those that are due later are planned anew.
            self._api.post("/deployments/", body)

        if busy:
            raise ConflictError(
                f"runs of {'; '.join(busy)} are under way: it starts no more, and can be removed once they have ended: "
                "wait or cancel them, then `llsflow deploy` again"
            )

    def _remove(self, deployment_id: str) -> list[str]:
        """Remove a deployment with its runs that wait; where some are under way only these, and return their names.

        The server cannot end a run whose deployment, and with it the limit that the run counts in, is gone.
        """
        self._api.post(f"/deployments/{deployment_id}/pause_deployment", {})
        while waiting := self._runs(deployment_id, ["SCHEDULED"]):
            for run in waiting:
                self._api.request("DELETE", f"/flow_runs/{run['id']}")
        under_way = [str(run["name"]) for run in self._runs(deployment_id, ["PENDING", "RUNNING", "CANCELLING"])]
        if not under_way:
            self._api.request("DELETE", f"/deployments/{deployment_id}")
        return under_way

    def _runs(self, deployment_id: str, states: Sequence[str]) -> list[Any]:
        asked = {
            "deployments": {"id": {"any_": [deployment_id]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
            "limit": _PAGE,
        }
        found: list[Any] = self._api.post("/flow_runs/filter", asked)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _there(self) -> dict[str, Any]:
        """Return every deployment of our flow, by name."""
        found: dict[str, Any] = {}
        while True:
            body = {"flows": {"name": {"any_": [FLOW]}}, "limit": _PAGE, "offset": len(found), "sort": "NAME_ASC"}
            page = self._api.post("/deployments/filter", body)
            found |= {str(deployment["name"]): deployment for deployment in page}
            if len(page) < _PAGE:
                return found

    def _refuse_others(self, wanted: Sequence[Deployment], there: Mapping[str, Any]) -> None:
        taken = [deployment.name for deployment in wanted if not _is_ours(there.get(deployment.name, _NONE))]
        if taken:
            whose = "made by somebody else, or for another LLSFLOW_HOME: rename the file, or remove that deployment"
            raise ConfigError(
                [
                    Mistake(f"deployment {name}", f"{FLOW}/{name} is on {self._api.url} already, {whose}")
                    for name in taken
                ]
            )


_NONE = {"tags": [SCHEDULED], "labels": {}}
"""Stands for a deployment that is not there: whoever takes the name may have it."""


def _is_ours(found: Mapping[str, Any]) -> bool:
    labels = found.get("labels") or {}
    return SCHEDULED in (found.get("tags") or []) and labels.get(HOME, str(home())) == str(home())


def _fields(deployment: Deployment, config_dir: Path | None) -> dict[str, Any]:
    """Return what makes a deployment, under the keys of its file, as `_fields_of` reads it back."""
    period = deployment.period()
    return {
        "description": deployment.description or None,
        "experiment": deployment.experiment,
        "overrides": deployment.overrides or None,
        "cron": deployment.cron,
        "interval": f"{period.total_seconds():.0f}s" if period else None,
        "rrule": deployment.rrule,
        "timezone": deployment.timezone,
        "work_pool": deployment.work_pool,
        "concurrency_limit": deployment.concurrency_limit,
        "collision": deployment.collision if deployment.concurrency_limit else None,
        "paused": deployment.paused,
        "config_dir": str(config_dir.resolve()) if config_dir else None,
        "folder": str(Path.cwd()),
        "command": provision.command(),
    }


def _fields_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of a deployment as the server has it."""
    parameters = found.get("parameters") or {}
    schedules = found.get("schedules") or [{}]
    schedule = schedules[0].get("schedule") or {}
    limit = (found.get("global_concurrency_limit") or {}).get("limit")
    collision = (found.get("concurrency_options") or {}).get("collision_strategy")
    variables = found.get("job_variables") or {}
    interval = schedule.get("interval")
    process = "working_dir" in variables
    return {
        "description": found.get("description") or None,
        "experiment": parameters.get("experiment"),
        "overrides": parameters.get("overrides") or None,
        "cron": schedule.get("cron"),
        "interval": f"{float(interval):.0f}s" if interval is not None else None,
        "rrule": str(rule).removeprefix(_ADDED_START) if (rule := schedule.get("rrule")) else None,
        "timezone": schedule.get("timezone"),
        "work_pool": found.get("work_pool_name"),
        "concurrency_limit": limit,
        "collision": str(collision).lower() if collision and limit else None,
        "paused": found.get("paused"),
        "config_dir": parameters.get("config_dir"),
        # Pools of other kinds than process know no folder and no command of this machine.
        "folder": variables.get("working_dir") if process else str(Path.cwd()),
        "command": variables.get("command") if process else provision.command(),
    }


def _body(deployment: Deployment, config_dir: Path | None, flow_id: str, pool_type: str) -> dict[str, Any]:
    """Return the request that makes a deployment."""
    fields = _fields(deployment, config_dir)
    parameters = {key: fields[key] for key in ("experiment", "overrides", "config_dir") if fields[key]}
    options = {"collision_strategy": deployment.collision.upper()} if deployment.concurrency_limit else None
    return {
        "name": deployment.name,
        "flow_id": flow_id,
        "entrypoint": provision.entrypoint(),
        "description": deployment.description or None,
        "tags": [TAG, SCHEDULED, deployment.experiment],
        "labels": {HOME: str(home())},
        "paused": deployment.paused,
        "schedules": [{"schedule": _schedule(deployment), "active": True, "slug": TAG}],
        "parameters": parameters,
        "parameter_openapi_schema": provision.PARAMETERS,
        "enforce_parameter_schema": False,
        "work_pool_name": deployment.work_pool,
        "concurrency_limit": deployment.concurrency_limit,
        "concurrency_options": options,
        "job_variables": provision.process_variables(pool_type, Path.cwd()),
    }


def _schedule(deployment: Deployment) -> dict[str, Any]:
    if deployment.cron is not None:
        return {"cron": deployment.cron, "timezone": deployment.timezone, "day_or": True}
    if deployment.rrule is not None:
        return {"rrule": deployment.rrule, "timezone": deployment.timezone}
    period = deployment.period()
    assert period is not None  # noqa: S101 - the record has exactly one schedule
    return {"interval": period.total_seconds(), "anchor_date": ANCHOR, "timezone": deployment.timezone}
