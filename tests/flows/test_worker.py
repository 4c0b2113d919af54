"""A real worker on a real server: jobs and schedules run in processes of their own, and none outlives its reason."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows import provision
from flows.deployments import Deployer
from flows.names import jobs_deployment
from flows.processes import descendants
from flows.rest import PrefectApi
from flows.submit import PrefectSubmitter
from flows.worker import give_back
from llsflow.config import load_experiment
from llsflow.home import locked
from llsflow.jobs.compiling import compile_job
from llsflow.plan import FlowState, FlowStatus, compile_plan
from llsflow.schema.deployment import Deployment
from llsflow.schema.jobs import JobStatus
from llsflow.steps.results import work_folder
from llsflow.store import Store, StoredJob
from tests.conftest import small_quickstart
from tests.flows.flow_program import wait_for
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

ENDED = {FlowState.COMPLETED, FlowState.FAILED, FlowState.CRASHED, FlowState.CANCELLED}


@dataclass
class Working:
    """A worker of a home, and what a test does with it."""

    home: Path
    pool: str
    api: PrefectApi
    submitter: PrefectSubmitter
    process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> None:
        ready = self.home / f"{self.pool}.ready"
        ready.unlink(missing_ok=True)
        with (self.home / "worker.log").open("ab") as log:
            words = [sys.executable, "-m", "flows.worker", "--pool", self.pool, "--ready", str(ready)]
            self.process = subprocess.Popen(
                words, env={**os.environ, **variables}, stdout=log, stderr=log, start_new_session=True
            )
        process = self.process
        wait_for(lambda: ready.exists() or process.poll() is not None, "a worker that is ready")
        assert process.poll() is None, self.log()

    def end(self, number: int = signal.SIGTERM) -> list[int]:
        """End the worker; return the processes that it had started."""
        assert self.process is not None
        started = descendants(self.process.pid)
        self.process.send_signal(number)
        self.process.wait(PATIENCE_SECONDS)
        return started

    def log(self) -> str:
        return (self.home / "worker.log").read_text("utf-8")

    def run(self, **parameters: Any) -> str:
        """Have the flow run with parameters of a schedule; return the id of the run."""
        deployment = self.api.get(f"/deployments/name/llsflow/{jobs_deployment(self.pool)}")
        return str(self.api.post(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"])

    def status(self, run: str) -> FlowStatus:
        return self.submitter.statuses([run])[run]

    def until(self, run: str, states: set[FlowState], seconds: float = PATIENCE_SECONDS) -> FlowStatus:
        wait_for(lambda: self.status(run).state in states, lambda: f"{states}, not {self.status(run)}", seconds)
        return self.status(run)

    def children(self) -> list[int]:
        return descendants(self.process.pid) if self.process else []


@pytest.fixture
def working(served: Path) -> Iterator[Working]:
    """A home with a server, and a worker of a pool of its own."""
    pool = f"pool-{uuid4().hex[:8]}"
    api = PrefectApi()
    found = Working(served, pool, api, PrefectSubmitter(pool, api))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()
    api.close()


def gone(pids: list[int]) -> bool:
    return not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Make an experiment whose first step waits, as if another process had it under way; costs no training."""
    with contextlib.ExitStack() as stack:

        def make() -> list[str]:
            overrides = [*small_quickstart(tmp_path), f"seed={uuid4().int % 10**6}"]
            first = compile_plan(load_experiment("quickstart", overrides).experiment).steps[0]
            stack.enter_context(locked(f"{first.kind}-{first.key[:16]}"))
            return overrides

        yield make


def store_job(overrides: list[str]) -> str:
    """Put a job into the store, as the API does."""
    compiled = compile_job(load_experiment("quickstart", overrides).experiment)
    job_id = f"job-{uuid4().hex[:8]}"
    store = Store.open()
    store.jobs.create(
        StoredJob(
            job_id=job_id,
            kind="post-training",
            request={},
            request_digest=job_id,
            config=compiled.config,
            plan_key=compiled.plan_key,
            status=JobStatus.SCHEDULED,
            created_at=datetime.now(UTC),
        )
    )
    store.close()
    return job_id


def stored(job_id: str) -> StoredJob:
    store = Store.open()
    found = store.jobs.get(job_id)
    store.close()
    assert found is not None
    return found


def test_a_job_and_a_schedule_run_and_arrive_in_mlflow(working: Working, tmp_path: Path) -> None:
    working.start()
    overrides = [*small_quickstart(tmp_path), f"seed={uuid4().int % 10**6}"]
    job_id = store_job(overrides)
    run = working.submitter.submit(job_id, 1)
    status = working.until(run, ENDED)
    assert (status.state, status.message) == (FlowState.COMPLETED, "8 steps run, 0 skipped"), working.log()
    job = stored(job_id)
    assert job.status is JobStatus.COMPLETED
    assert job.flow_run_id == run
    assert job.links["prefect"] == status.page
    assert job.resources is not None

    # The same experiment by name: the same plan, so there is nothing left to do; another seed has it all to do.
    done = working.run(experiment="quickstart", overrides=overrides)
    status = working.until(done, ENDED)
    assert (status.state, status.message) == (FlowState.COMPLETED, "nothing to do: all 8 steps are up to date")
    other = working.run(experiment="quickstart", overrides=[*overrides, "recipe.training_config.n_epochs=2"])
    status = working.until(other, ENDED)
    assert status.state is FlowState.COMPLETED, status
    assert working.api.get(f"/flow_runs/{other}")["name"].startswith("quickstart-")

    with contextlib.closing(sqlite3.connect(working.home / "mlflow" / "mlflow.db")) as database:
        runs = database.execute(
            "select status from runs join tags using (run_uuid) where key = 'llsflow.step' and value = 'pipeline'"
        ).fetchall()
    assert runs == [("FINISHED",), ("FINISHED",)]
    assert gone(working.end())


def test_a_mistake_is_one_sentence_on_the_page(working: Working) -> None:
    working.start()
    status = working.until(working.run(experiment="quickstrat"), ENDED)
    assert status.state is FlowState.FAILED
    assert "no experiment 'quickstrat'; did you mean 'quickstart'?" in status.message
    status = working.until(working.submitter.submit("job-of-another-store", 1), ENDED)
    assert status.state is FlowState.FAILED
    assert "no job 'job-of-another-store'" in status.message
    runs = working.home / "prefect" / "runs"
    wait_for(lambda: not list(runs.glob("*.json")), "nothing to remember")


def test_a_cancelled_job_keeps_its_checkpoint_and_leaves_no_process(working: Working, tmp_path: Path) -> None:
    working.start()
    overrides = [*small_quickstart(tmp_path), f"seed={uuid4().int % 10**6}"]
    overrides += ["recipe.training_config.n_epochs=100000", "recipe.training_config.max_steps_per_epoch=1000"]
    plan = compile_plan(load_experiment("quickstart", overrides).experiment)
    checkpoints = work_folder(plan.step("train")) / "checkpoints"
    run = working.submitter.submit(store_job(overrides), 1)
    wait_for(lambda: checkpoints.exists() and any(checkpoints.iterdir()), lambda: f"a checkpoint: {working.log()}")
    children = working.children()
    assert children
    working.submitter.cancel(run)
    status = working.until(run, ENDED)
    wait_for(lambda: gone(children), "no process left")
    assert status.state is FlowState.CANCELLED
    assert any(checkpoints.iterdir())
    assert working.children() == []


def test_a_run_that_waits_for_a_free_place_is_cancelled_without_a_process(working: Working) -> None:
    provision.ensure_jobs_deployment(working.api, working.pool)
    run = working.submitter.submit("job", 1)
    working.submitter.cancel(run)
    working.start()
    assert working.status(run).state is FlowState.CANCELLED


def test_a_server_that_lost_its_database_takes_jobs_again(working: Working) -> None:
    working.start()
    assert working.submitter.ready()
    deployment = working.api.get(f"/deployments/name/llsflow/{jobs_deployment(working.pool)}")
    working.api.request("DELETE", f"/deployments/{deployment['id']}")
    wait_for(working.submitter.ready, "the deployment of jobs", 60)


def test_a_run_whose_worker_died_before_it_began_waits_again(working: Working) -> None:
    provision.ensure_jobs_deployment(working.api, working.pool)
    run = working.submitter.submit("job", 1)
    assert give_back(working.api, working.pool, 0.0) == []
    pending = {"state": {"type": "PENDING", "name": "Pending"}, "force": True}
    working.api.post(f"/flow_runs/{run}/set_state", pending)
    assert give_back(working.api, working.pool) == []
    assert give_back(working.api, working.pool, 0.0) == [run]
    assert working.api.get(f"/flow_runs/{run}")["state"]["name"] == "AwaitingRetry"
    working.start()
    assert "no job 'job'" in working.until(run, ENDED).message


def test_a_worker_that_ends_leaves_its_runs_to_the_next(working: Working, held: Callable[[], list[str]]) -> None:
    working.start()
    schedule = working.run(experiment="quickstart", overrides=held())
    job_id = store_job(held())
    job = working.submitter.submit(job_id, 1)
    for run in (schedule, job):
        working.until(run, {FlowState.RUNNING})
    wait_for(lambda: stored(job_id).links.get("mlflow") is not None, "the job's first step")
    assert gone(working.end())
    assert working.status(schedule).state is FlowState.WAITING
    assert working.status(schedule).message.startswith("its worker ended: stopped")
    assert working.status(job).state is FlowState.CRASHED
    assert (stored(job_id).status, stored(job_id).flow_run_id) == (JobStatus.SCHEDULED, None)
    working.start()
    working.until(schedule, {FlowState.RUNNING})
    working.submitter.cancel(schedule)
    assert working.until(schedule, ENDED).state is FlowState.CANCELLED


def test_a_worker_that_is_killed_takes_its_runs_along(working: Working, held: Callable[[], list[str]]) -> None:
    working.start()
    run = working.run(experiment="quickstart", overrides=held())
    working.until(run, {FlowState.RUNNING})
    children = working.end(signal.SIGKILL)
    assert children
    wait_for(lambda: gone(children), "the end of what the worker had started", 30)
    assert working.status(run).state is FlowState.WAITING


def test_everything_killed_at_once_is_known_to_the_next_worker(working: Working, held: Callable[[], list[str]]) -> None:
    working.start()
    run = working.run(experiment="quickstart", overrides=held())
    working.until(run, {FlowState.RUNNING})
    children = working.children()
    os.kill(working.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    working.end(signal.SIGKILL)
    assert working.status(run).state is FlowState.RUNNING, "nobody has told it yet"
    working.start()
    status = working.until(run, ENDED)
    assert status.state is FlowState.CRASHED
    assert "was killed" in status.message


def test_a_run_that_is_killed_is_crashed_at_once(working: Working, held: Callable[[], list[str]]) -> None:
    working.start()
    run = working.run(experiment="quickstart", overrides=held())
    working.until(run, {FlowState.RUNNING})
    for pid in working.children():
        os.kill(pid, signal.SIGKILL)
    assert working.until(run, ENDED, 20).state is FlowState.CRASHED


def test_a_schedule_fires_and_its_run_arrives_in_mlflow(working: Working, tmp_path: Path) -> None:
    overrides = [*small_quickstart(tmp_path), f"seed={uuid4().int % 10**6}"]
    often = Deployment(
        name=f"often-{working.pool}",
        experiment="quickstart",
        overrides=overrides,
        interval="5s",
        work_pool=working.pool,
    )
    deployer = Deployer()
    deployer.apply(deployer.differences([often]), [often])
    working.start()

    def done() -> list[str]:
        of_it = {
            "deployments": {"name": {"any_": [often.name]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        runs = working.api.post("/flow_runs/filter", {**of_it, "sort": "END_TIME_DESC"})
        return [str(run["state"]["message"]) for run in runs][::-1]

    wait_for(lambda: len(done()) >= 2, lambda: f"two runs, not {done()}: {working.log()}")
    deployer.apply(deployer.differences([]), [])
    deployer.close()
    assert done() == [] or done()[:2] == ["8 steps run, 0 skipped", "nothing to do: all 8 steps are up to date"]
    with contextlib.closing(sqlite3.connect(working.home / "mlflow" / "mlflow.db")) as database:
        seed = overrides[-1].partition("=")[2]
        runs = database.execute(
            "select status from runs join params using (run_uuid) join tags using (run_uuid) "
            "where params.key = 'seed' and params.value = ? and tags.key = 'llsflow.step' and tags.value = 'pipeline'",
            [seed],
        ).fetchall()
    assert runs == [("FINISHED",)]
