"""Killed processes, lost servers, two at once: what a run does when Prefect is in trouble."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows.runner import PrefectRunner
from flows.stack import LocalPrefect
from llsflow.errors import LlsflowError, UnavailableError
from llsflow.schema.plan import Step, StepResult
from llsflow.steps.context import PlanRun
from tests.flows.conftest import finish, spawn, until_step
from tests.flows.flow_program import began_file, execute, go_file, make_plan, make_plan_run, wait_for
from tests.flows.looking import Looked, flow_run_id, look, look_state
from tests.patience import PATIENCE_SECONDS


def test_a_killed_run_is_crashed_once_the_next_one_begins(served: Path, runner: PrefectRunner) -> None:
    child = spawn(served, "ok", "wait")
    until_step(child, served, "wait-1")
    runs = served / "prefect" / "runs"
    (entry,) = runs.glob("*.json")
    plan = make_plan("ok", "ok")
    plan_run = make_plan_run(plan)
    runner.run(plan, plan_run)
    dead = UUID(entry.stem)
    assert look_state(dead) == "RUNNING", "its process lives: not ours to judge"

    child.kill()
    child.communicate()
    runner.run(plan, plan_run)
    found = Looked(dead, {"ok-0", "wait-1"})
    assert found.state()[0] == "CRASHED"
    assert f"id {child.pid}" in found.state()[2]
    assert found.state("ok-0")[0] == "COMPLETED"
    assert found.state("wait-1")[0] == "CRASHED"
    assert list(runs.iterdir()) == []


def test_two_runs_at_once_share_the_server(served: Path) -> None:
    both = [spawn(served, "ok", "wait"), spawn(served, "ok", "wait", "ok")]
    for process in both:
        until_step(process, served, "wait-1")
    go_file().write_text("")
    first, second = (finish(process) for process in both)
    assert first["steps"] == ["ok-0", "wait-1"]
    assert second["steps"] == ["ok-0", "wait-1", "ok-2"]
    assert first["flow_url"].rpartition("/")[0] == second["flow_url"].rpartition("/")[0]


def test_a_dead_prefect_api_url_is_told_at_once_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    runner = PrefectRunner(execute)
    runner.start()
    plan = make_plan("ok")
    with pytest.raises(UnavailableError, match="start it, or unset PREFECT_API_URL") as raised:
        runner.run(plan, make_plan_run(plan))
    assert "http://127.0.0.1:9/api" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "prefect" / "server.json").exists()
    assert not began_file("ok-0").exists()


def test_prefect_api_url_is_used_and_no_server_is_started(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_server: Any
) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", shared_server.urls[0])
    runner = PrefectRunner(execute)
    plan = make_plan("ok")
    plan_run = make_plan_run(plan)
    assert list(runner.run(plan, plan_run)) == ["ok-0"]
    assert look(plan_run).state()[0] == "COMPLETED"
    assert not (tmp_path / "prefect" / "server.json").exists()
    assert runner.prefect.status().local is False
    assert runner.stop() is False


def test_a_second_ctrl_c_ends_the_run_as_crashed(
    runner: PrefectRunner, served: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("ok", "interrupt", "ok")
    plan_run = make_plan_run(plan)
    with pytest.raises(KeyboardInterrupt):
        runner.run(plan, plan_run)
    assert capfd.readouterr() == ("", "")
    found = look(plan_run, "ok-0", "interrupt-1")
    assert found.state()[0] == found.state("interrupt-1")[0] == "CRASHED"
    assert "ok-2" not in found.tasks
    runner.run(make_plan("ok"), make_plan_run(make_plan("ok")))
    assert list((served / "prefect" / "runs").iterdir()) == []


def test_a_run_that_somebody_ends_behind_our_back_still_has_its_results(runner: PrefectRunner) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    def meddle(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        if step.name == "ok-1":
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(flow_run_id(plan_run), Cancelled(), force=True)
        return execute(step, plan_run, done)

    runner._execute = meddle
    plan = make_plan("ok", "ok")
    assert list(runner.run(plan, make_plan_run(plan))) == ["ok-0", "ok-1"]
    assert list((runner.prefect.folder / "runs").iterdir()) == []


def test_trouble_that_is_not_the_steps_costs_the_page_only(
    runner: PrefectRunner, caplog: pytest.LogCaptureFixture
) -> None:
    class NoPage:
        def page(self, run_id: str) -> str:
            raise RuntimeError("no page today")

    plan = make_plan("ok", "ok")
    plan_run = make_plan_run(plan)
    plan_run.tracking = NoPage()  # type: ignore[assignment]
    assert list(runner.run(plan, plan_run)) == ["ok-0", "ok-1"]
    assert "Prefect cannot go on with this run" in caplog.text
    assert "no page today" in caplog.text
    found = Looked(flow_run_id(plan_run), set())
    assert found.state() == ("COMPLETED", "Completed", "2 steps run, 0 skipped")


def test_an_old_run_that_cannot_be_told_keeps_no_new_one_from_running(runner: PrefectRunner) -> None:
    runs = runner.prefect.folder / "runs"
    runs.mkdir(exist_ok=True)
    unknown = uuid4()
    (runs / f"{unknown}.json").write_text('{"plan": "x", "server": "local", "pid": 1, "ended": null}')
    (runs / "no-id.json").write_text('{"plan": "x", "server": "local", "pid": 1, "ended": null}')
    (runs / "spoilt.json").write_text("{")
    elsewhere = runs / f"{uuid4()}.json"
    elsewhere.write_text('{"plan": "x", "server": "http://elsewhere/api", "pid": 1, "ended": null}')
    plan = make_plan("ok")
    try:
        assert list(runner.run(plan, make_plan_run(plan))) == ["ok-0"]
        assert not (runs / f"{unknown}.json").exists()
        assert elsewhere.exists()
    finally:
        for left in runs.iterdir():
            left.unlink()


def test_what_llsflow_logs_stands_on_the_page_too(runner: PrefectRunner) -> None:
    plan = make_plan("log")
    plan_run = make_plan_run(plan)
    listener = logging.NullHandler()
    logging.getLogger("llsflow").addHandler(listener)
    try:
        runner.run(plan, plan_run)
    finally:
        logging.getLogger("llsflow").removeHandler(listener)
    found = look(plan_run)
    (line,) = (log for log in found.logs if log.message == "3 rows were cut")
    assert line.task_run_id == found.tasks["log-0"].id
    assert logging.getLogger("llsflow").handlers == []


@pytest.mark.slow
def test_a_local_server_killed_in_the_middle_comes_back(new_home: Callable[[str], Path]) -> None:
    home = new_home("home")
    child = spawn(home, "ok", "wait", "ok")
    until_step(child, home, "wait-1")
    prefect = LocalPrefect()
    os.environ.update(prefect.environment())
    (entry,) = (home / "prefect" / "runs").glob("*.json")
    Looked(UUID(entry.stem), {"ok-0"})

    killed = prefect.status().pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: prefect.status().pid not in (killed, None) and prefect.status().healthy, "a new server")
    go_file().write_text("")
    assert finish(child)["steps"] == ["ok-0", "wait-1", "ok-2"]
    found = Looked(UUID(entry.stem), {"ok-0", "wait-1", "ok-2"})
    assert found.state() == ("COMPLETED", "Completed", "3 steps run, 0 skipped")
    assert {found.state(name)[0] for name in found.tasks} == {"COMPLETED"}


@pytest.mark.slow
def test_an_api_lost_in_the_middle_costs_the_page_not_the_results(
    new_home: Callable[[str], Path], tmp_path: Path
) -> None:
    """The server is another's, so nobody brings it back before the run ends."""
    new_home("server")
    theirs = LocalPrefect()
    theirs.start()
    url = theirs.wait()
    home = tmp_path / "mine"
    home.mkdir()
    child = spawn(home, "ok", "wait", "ok", PREFECT_API_URL=url)
    until_step(child, home, "wait-1")
    theirs.stop()
    (home / "go").write_text("")
    out, err = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 0, err
    said = json.loads(out)
    assert said["steps"] == ["ok-0", "wait-1", "ok-2"]
    (line,) = err.splitlines()
    assert line.startswith("Prefect does not know how this run ended (ConnectError: ")
    assert line.endswith("): the next run tells it")

    again = LocalPrefect(port=int(url.split(":")[2].split("/")[0]))
    again.start()
    assert again.wait() == url
    os.environ |= {"LLSFLOW_HOME": str(home), "PREFECT_API_URL": url}
    plan = make_plan("ok")
    PrefectRunner(execute).run(plan, make_plan_run(plan))
    found = Looked(UUID(said["flow_url"].rpartition("/")[2]), set())
    assert found.state() == ("COMPLETED", "Completed", "3 steps run, 0 skipped")
    assert {found.state(name)[0] for name in found.tasks} <= {"COMPLETED"}
    assert list((home / "prefect" / "runs").iterdir()) == []


def test_errors_are_all_ours(runner: PrefectRunner) -> None:
    """A server that refuses the run is one sentence, before any step."""
    plan = make_plan("ok", name="x")
    plan_run = make_plan_run(plan)
    runner.prefect.wait()
    plan = plan.model_copy(update={"experiment": plan.experiment.model_copy(update={"name": "x\ud800"})})
    with pytest.raises(LlsflowError, match="did not take the run"):
        runner.run(plan, plan_run)
    assert not began_file("ok-0").exists()
