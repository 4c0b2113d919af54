"""The record of a run in MLflow, and what becomes of one whose process was killed."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from llsflow import home
from llsflow.config import load_experiment
from llsflow.errors import Stopped
from llsflow.plan import compile_plan
from llsflow.schema.experiment import TrackingConfig
from llsflow.steps.context import Origin
from llsflow.steps.opening import open_plan_run, settle
from llsflow.tracking import Tracking


def test_the_record_of_a_killed_process_is_ended_and_that_of_a_living_one_is_not() -> None:
    tracking = Tracking(TrackingConfig(experiment="theirs"))
    tracking.connect()
    killed, alive = (tracking.open_run(name, run_id=None, tags={}, description="") for name in ("killed", "alive"))
    client = MlflowClient(tracking.uri)
    child = client.create_run(
        client.get_run(killed.id).info.experiment_id, tags={"mlflow.parentRunId": killed.id}
    ).info.run_id
    for memo, run in (("a", killed), ("b", alive)):
        home.write_json(home.home() / "runs" / f"{memo}.json", run.id)
    with home.alone("run-b"):
        settle(TrackingConfig(experiment="another"))
    ends = {run_id: client.get_run(run_id).info.status for run_id in (killed.id, child, alive.id)}
    assert ends == {killed.id: "KILLED", child: "KILLED", alive.id: "RUNNING"}
    alive.finish("FINISHED")
    tracking.close()


def test_a_run_that_is_to_stop_already_opens_no_record() -> None:
    plan = compile_plan(load_experiment("quickstart", []).experiment)
    with pytest.raises(Stopped), open_plan_run(plan, [], lambda: True, Origin("")):
        pass
    assert not (home.home() / "mlflow").exists()
