"""Schedules on a real Prefect server: made, changed field by field, removed, and left alone where they are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows import provision
from flows.deployments import SCHEDULED, Deployer
from flows.names import FLOW
from flows.rest import PrefectApi
from llsflow.cli import main
from llsflow.errors import ConfigError, ConflictError
from llsflow.schema.deployment import Deployment

BASE = {"name": "weekly", "experiment": "quickstart", "cron": "0 3 * * 1"}


def deployment(**changes: Any) -> Deployment:
    return Deployment.model_validate({**BASE, **changes})


@pytest.fixture
def deployer(served: Path) -> Iterator[Deployer]:
    """One whose server has nothing of ours, before and after."""
    found = Deployer()
    found.start()
    yield found
    found.apply(found.differences([]), [])
    found.close()


def bring(deployer: Deployer, *wanted: Deployment) -> list[tuple[str, str, dict[str, Any]]]:
    """Apply what differs; return it."""
    found = deployer.differences(wanted)
    deployer.apply(found, wanted)
    assert deployer.differences(wanted) == [], "a second time there is nothing to change"
    return [(difference.name, difference.kind, dict(difference.fields)) for difference in found]


def test_made_then_left_alone_then_removed(deployer: Deployer) -> None:
    ((name, kind, fields),) = bring(deployer, deployment(description="Every Monday."))
    assert (name, kind) == ("weekly", "created")
    assert fields["cron"] == (None, "0 3 * * 1")
    api = PrefectApi()
    there = api.get(f"/deployments/name/{FLOW}/weekly")
    assert there["parameters"] == {"experiment": "quickstart"}
    assert there["schedules"][0]["schedule"] == {"cron": "0 3 * * 1", "timezone": "UTC", "day_or": True}
    assert SCHEDULED in there["tags"]
    assert bring(deployer) == [("weekly", "removed", {})]
    api.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"cron": "0 4 * * 1"},
        {"cron": None, "interval": "6h"},
        {"cron": None, "rrule": "FREQ=DAILY;BYHOUR=3"},
        {"timezone": "Europe/Berlin"},
        {"experiment": "sft"},
        {"overrides": ["seed=1", "recipe.lr_schedule=linear"]},
        {"description": "Another."},
        {"work_pool": "others"},
        {"concurrency_limit": None},
        {"concurrency_limit": 3},
        {"collision": "cancel_new"},
        {"paused": True},
    ],
    ids=str,
)
def test_every_field_is_seen_and_changed_there_and_back(deployer: Deployer, changes: dict[str, Any]) -> None:
    bring(deployer, deployment())
    api = PrefectApi()
    first = api.get(f"/deployments/name/{FLOW}/weekly")["id"]
    ((name, kind, fields),) = bring(deployer, deployment(**changes))
    assert (name, kind) == ("weekly", "changed")
    derived = {"collision"} if changes == {"concurrency_limit": None} else set()
    assert set(fields) == {*changes} | derived
    ((_, _, back),) = bring(deployer, deployment())
    assert {key: pair[::-1] for key, pair in back.items()} == fields
    assert api.get(f"/deployments/name/{FLOW}/weekly")["id"] == first, "its runs stay its own"
    api.close()


def test_only_what_differs_is_touched(deployer: Deployer) -> None:
    bring(deployer, deployment(), deployment(name="other"))
    told = bring(deployer, deployment(paused=True), deployment(name="third"))
    assert [(name, kind) for name, kind, _ in told] == [
        ("other", "removed"),
        ("third", "created"),
        ("weekly", "changed"),
    ]


def test_one_with_a_run_under_way_starts_no_more_and_goes_when_that_has_ended(deployer: Deployer) -> None:
    bring(deployer, deployment())
    api = PrefectApi()
    deployment_id = api.get(f"/deployments/name/{FLOW}/weekly")["id"]
    runs = [api.post(f"/deployments/{deployment_id}/create_flow_run", {"name": name})["id"] for name in ("on", "off")]
    api.post(f"/flow_runs/{runs[0]}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    with pytest.raises(ConflictError, match=r"runs of weekly \(on\) are under way"):
        deployer.apply(deployer.differences([]), [])
    assert api.get(f"/deployments/{deployment_id}")["paused"]
    left = api.post("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment_id]}}})
    assert [run["name"] for run in left] == ["on"]
    api.post(f"/flow_runs/{runs[0]}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    assert bring(deployer) == [("weekly", "removed", {})]
    api.close()


def test_what_others_made_is_neither_changed_nor_removed(deployer: Deployer, monkeypatch: pytest.MonkeyPatch) -> None:
    api = PrefectApi()
    name = f"theirs-{uuid4().hex[:6]}"
    api.post("/deployments/", {"name": name, "flow_id": provision.flow_id(api), "tags": ["llsflow"]})
    assert deployer.differences([]) == []
    with pytest.raises(ConfigError, match=f"llsflow/{name} is on .* already, made by somebody else"):
        deployer.differences([deployment(name=name)])
    bring(deployer, deployment())
    home = deployer._prefect.folder.parent
    monkeypatch.setenv("LLSFLOW_HOME", str(home / "another"))
    assert deployer.differences([]) == []
    with pytest.raises(ConfigError, match="for another LLSFLOW_HOME: rename the file"):
        deployer.differences([deployment()])
    monkeypatch.setenv("LLSFLOW_HOME", str(home))
    api.close()


def test_the_jobs_of_a_server_are_not_ours_to_remove(deployer: Deployer) -> None:
    api = PrefectApi()
    provision.ensure_jobs_deployment(api, "llsflow")
    assert deployer.differences([]) == []
    api.close()


def test_another_configuration_folder_is_a_difference(deployer: Deployer, tmp_path: Path) -> None:
    bring(deployer, deployment())
    (difference,) = deployer.differences([deployment()], tmp_path)
    assert difference.fields == {"config_dir": (None, str(tmp_path))}


def test_the_command_shows_asks_and_applies(
    deployer: Deployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf" / "deployment" / "hourly.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# Every hour.\nexperiment: quickstart\ninterval: 1h\n", "utf-8")
    assert main(["deploy", "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "+ hourly  created"
    assert "    interval: 3600s" in told
    assert "+ nightly  created" in told
    assert main(["deploy"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert main(["deploy", "--yes"]) == 0
    assert "done: 2 deployments" in capsys.readouterr().out
    assert main(["deploy"]) == 0
    assert capsys.readouterr().out == "nothing to change: 2 deployments as conf/deployment says\n"
    file.write_text("# Every day.\nexperiment: quickstart\ninterval: 1d\npaused: true\n", "utf-8")
    assert main(["deploy", "--yes"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:3] == ["~ hourly  changed", "    interval: 3600s -> 86400s", "    paused: false -> true"]
    file.unlink()
    assert main(["deploy", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "- hourly  removed"
    file.write_text("experiment: nope\ncron: x\n", "utf-8")
    assert main(["deploy", "--yes"]) == 2
    assert "conf/deployment/hourly.yaml:2:1: cron: found 'x'" in capsys.readouterr().err
