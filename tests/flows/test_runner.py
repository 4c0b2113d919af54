"""Plans run on a real Prefect server, and what a person finds on its page afterwards."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from conftest import finish, spawn, until_step
from flow_program import SENTENCE, began_file, execute, go_file, make_plan, make_session, wait_for

from flows.runner import PrefectRunner
from flows.stack import LocalPrefect
from llsflow.errors import LlsflowError, ModelError, Stopped, UnavailableError
from llsflow.schema.plan import Step, StepResult
from llsflow.steps.session import Progress, Session


def flow_run_id(session: Session) -> UUID:
    assert session.flow_url is not None
    return UUID(session.flow_url.rpartition("/")[2])


def look(session: Session, *steps: str) -> Looked:
    """Return what the server knows, once it knows of these steps; without any, of all of the plan's."""
    return Looked(flow_run_id(session), {*steps} or {step.name for step in session.plan.steps})


class Looked:
    """What the server knows of a flow run."""

    def __init__(self, run_id: UUID, steps: set[str]) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas import filters

        of_run = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[run_id]))
        with get_client(sync_client=True) as client:

            def tasks_recorded() -> bool:
                # The server writes task runs down as their events come in.
                self.tasks = {task.name: task for task in client.read_task_runs(flow_run_filter=of_run)}
                done = {name for name, task in self.tasks.items() if task.state and task.state.is_final()}
                return done >= steps

            wait_for(tasks_recorded, lambda: f"{steps} in their last states, not {self.tasks}", 30)
            self.run = client.read_flow_run(run_id)
            self.artifacts = client.read_artifacts(flow_run_filter=of_run)
            self.logs = client.read_logs(
                filters.LogFilter(flow_run_id=filters.LogFilterFlowRunId(any_=[run_id])), limit=200
            )

    def state(self, task: str | None = None) -> tuple[str, str, str]:
        found = self.tasks[task].state if task else self.run.state
        assert found is not None
        return found.type.value, found.name or "", found.message or ""


def test_every_step_is_a_task_run_and_the_page_says_what_happened(runner: PrefectRunner) -> None:
    plan = make_plan("ok", "skip", "ok", name="my.experiment")
    session = make_session(plan)
    results = runner.run(plan, session)
    assert list(results) == ["ok-0", "skip-1", "ok-2"]
    assert results["ok-2"].folder == "/ok-2"
    found = look(session)
    assert found.run.name == f"my.experiment-{plan.key[:8]}"
    assert set(found.run.tags) == {"llsflow", "my.experiment", "org/tiny"}
    assert found.run.parameters == {"experiment": "my.experiment", "plan": plan.key, "mlflow_run": session.run.id}
    assert found.state() == ("COMPLETED", "Completed", "2 steps run, 1 skipped")
    assert set(found.tasks) == {"ok-0", "skip-1", "ok-2"}
    assert found.state("ok-0")[:2] == ("COMPLETED", "Completed")
    assert found.state("skip-1") == ("COMPLETED", "Skipped", "because of skip")


def test_the_graph_on_the_page_shows_what_needs_what(runner: PrefectRunner) -> None:
    plan = make_plan("ok", "ok", "skip", "ok")
    session = make_session(plan)
    runner.run(plan, session)
    tasks = look(session).tasks
    edges = {
        name: {str(source.id) for sources in task.task_inputs.values() for source in sources if hasattr(source, "id")}
        for name, task in tasks.items()
    }
    assert edges == {
        "ok-0": set(),
        "ok-1": {str(tasks["ok-0"].id)},
        "skip-2": {str(tasks["ok-1"].id)},
        "ok-3": {str(tasks["skip-2"].id)},
    }


def test_the_page_is_known_before_the_first_step_and_the_session_comes_back_as_it_was(
    runner: PrefectRunner,
) -> None:
    known: list[str | None] = []

    def remember(step: Step, session: Session, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        known.append(session.flow_url)
        assert threading.current_thread() is threading.main_thread()
        return execute(step, session, done)

    runner._execute = remember
    plan = make_plan("ok")
    session = make_session(plan)
    asked = session.stopping
    runner.run(plan, session)
    assert known == [session.flow_url]
    assert session.flow_url is not None
    assert session.flow_url.startswith(runner.prefect.wait().removesuffix("/api"))
    assert session.watchers == []
    assert session.stopping is asked


def test_a_users_mistake_is_one_sentence_on_the_page_and_nothing_on_the_terminal(
    runner: PrefectRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("ok", "fail", "ok")
    session = make_session(plan)
    with pytest.raises(ModelError, match=SENTENCE):
        runner.run(plan, session)
    assert capfd.readouterr() == ("", "")
    found = look(session, "ok-0", "fail-1")
    assert found.state() == ("FAILED", "Failed", SENTENCE)
    assert found.state("fail-1") == ("FAILED", "Failed", SENTENCE)
    assert "ok-2" not in found.tasks
    assert not began_file("ok-2").exists()
    assert not [log for log in found.logs if "Traceback" in log.message]
    assert [log for log in found.logs if log.message == SENTENCE]


def test_a_mistake_of_ours_comes_through_unchanged_with_its_traceback_on_the_page(
    runner: PrefectRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("bug")
    session = make_session(plan)
    with pytest.raises(ValueError, match="a programming error") as raised:
        runner.run(plan, session)
    assert "_bug" in [entry.name for entry in raised.traceback]
    assert capfd.readouterr() == ("", "")
    found = look(session)
    assert found.state() == ("FAILED", "Failed", "ValueError: a programming error")
    assert [log for log in found.logs if "Traceback" in log.message and "flow_program" in log.message]


def test_a_stop_is_a_cancelled_run(runner: PrefectRunner) -> None:
    plan = make_plan("ok", "stop", "ok")
    session = make_session(plan)
    with pytest.raises(Stopped, match="stopped after step 30 of 300") as raised:
        runner.run(plan, session)
    assert type(raised.value) is Stopped
    found = look(session, "ok-0", "stop-1")
    assert found.state()[:2] == ("CANCELLED", "Cancelled")
    assert "step 30 of 300" in found.state()[2]
    assert found.state("stop-1")[:2] == ("CANCELLED", "Cancelled")


def test_cancel_on_the_page_stops_the_run(runner: PrefectRunner) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    def press_cancel(step: Step, session: Session, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id(session), Cancelling())
        return execute(step, session, done)

    runner._execute = press_cancel
    runner._listen_seconds = 0.05
    plan = make_plan("wait", "ok")
    session = make_session(plan)
    with pytest.raises(Stopped):
        runner.run(plan, session)
    assert look(session, "wait-0").state()[:2] == ("CANCELLED", "Cancelled")


@pytest.mark.parametrize(("failures", "works"), [(2, True), (3, False)])
def test_what_may_pass_is_tried_again(runner: PrefectRunner, failures: int, works: bool) -> None:
    plan = make_plan("flaky", kinds={0: "record"}, failures=failures)
    session = make_session(plan)
    began_file("flaky-0").with_suffix(".tries").unlink(missing_ok=True)
    if works:
        assert list(runner.run(plan, session)) == ["flaky-0"]
    else:
        with pytest.raises(UnavailableError, match=r"does not answer \(try 3\)"):
            runner.run(plan, session)
    found = look(session)
    assert found.tasks["flaky-0"].run_count == 3
    expected = "COMPLETED" if works else "FAILED"
    assert found.state()[0] == found.state("flaky-0")[0] == expected


def test_only_kinds_that_say_so_are_tried_again(runner: PrefectRunner) -> None:
    plan = make_plan("flaky", failures=1)
    began_file("flaky-0").with_suffix(".tries").unlink(missing_ok=True)
    session = make_session(plan)
    with pytest.raises(UnavailableError, match=r"\(try 1\)"):
        runner.run(plan, session)
    assert look(session).tasks["flaky-0"].run_count == 1


def test_a_users_mistake_is_never_tried_again(runner: PrefectRunner) -> None:
    plan = make_plan("fail", kinds={0: "record"})
    session = make_session(plan)
    with pytest.raises(ModelError):
        runner.run(plan, session)
    assert look(session).tasks["fail-0"].run_count == 1


def test_the_page_has_the_link_the_table_and_the_progress(runner: PrefectRunner) -> None:
    table = [{"candidate": "base", "score": 0.0, "n": 200}, {"candidate": "tuned", "score": float("nan"), "n": 200}]
    plan = make_plan("progress", "ok", kinds={1: "compare"}, summary={"table": table})
    session = make_session(plan)
    runner.run(plan, session)
    found = look(session)
    by_type = {artifact.type: artifact for artifact in found.artifacts}
    assert sorted(artifact.type for artifact in found.artifacts) == ["markdown", "progress", "table"]
    assert by_type["markdown"].key == "mlflow-quickstart"
    assert by_type["markdown"].data == f"[MLflow run]({session.tracking.page(session.run.id)})"
    assert by_type["table"].key == "results-quickstart"
    rows = json.loads(by_type["table"].data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert rows == [table[0], {**table[1], "score": "nan"}]
    assert by_type["table"].task_run_id == found.tasks["ok-1"].id
    assert by_type["progress"].data == 100.0
    assert by_type["progress"].description == "300 / 300 steps (100 %), loss 0.003322"
    assert by_type["progress"].task_run_id == found.tasks["progress-0"].id
    assert [log for log in found.logs if log.message == "300 / 300 steps (100 %), loss 0.003322"]


def test_progress_is_one_bar_that_moves(runner: PrefectRunner) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters

    def bars(session: Session) -> list[Any]:
        of_run = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[flow_run_id(session)]))
        with get_client(sync_client=True) as client:
            return [found.data for found in client.read_artifacts(flow_run_filter=of_run) if found.type == "progress"]

    def report(step: Step, session: Session, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        for share in (10, 20, 30):
            for watcher in session.watchers:
                watcher.progress(step, Progress(share, 40, "rows"))
            expected = [100.0 * share / 40]
            wait_for(lambda expected=expected: bars(session) == expected, f"the bar at {share} of 40", 20)
        return execute(step, session, done)

    runner._execute = report
    plan = make_plan("ok")
    session = make_session(plan)
    runner.run(plan, session)
    assert bars(session) == [75.0]


def test_a_table_of_something_else_is_left_out(runner: PrefectRunner) -> None:
    plan = make_plan("ok", kinds={0: "record"}, summary={"table": "none"})
    session = make_session(plan)
    runner.run(plan, session)
    assert {artifact.type for artifact in look(session).artifacts} == {"markdown"}


def test_the_callers_sigterm_handler_stays_in_place(runner: PrefectRunner) -> None:
    def ours(number: int, frame: Any) -> None:
        raise AssertionError("not sent here")

    seen: list[Any] = []

    def remember(step: Step, session: Session, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        seen.append(signal.getsignal(signal.SIGTERM))
        return execute(step, session, done)

    before = signal.signal(signal.SIGTERM, ours)
    try:
        runner._execute = remember
        plan = make_plan("ok")
        runner.run(plan, make_session(plan))
        assert seen == [ours]
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_killed_run_is_crashed_once_the_next_one_begins(served: Path, runner: PrefectRunner) -> None:
    child = spawn(served, "ok", "wait")
    until_step(child, served, "wait-1")
    runs = served / "prefect" / "runs"
    (entry,) = runs.glob("*.json")
    plan = make_plan("ok", "ok")
    session = make_session(plan)
    runner.run(plan, session)
    dead = UUID(entry.stem)
    assert look_state(dead) == "RUNNING", "its process lives: not ours to judge"

    child.kill()
    child.communicate()
    runner.run(plan, session)
    found = Looked(dead, {"ok-0", "wait-1"})
    assert found.state()[0] == "CRASHED"
    assert f"id {child.pid}" in found.state()[2]
    assert found.state("ok-0")[0] == "COMPLETED"
    assert found.state("wait-1")[0] == "CRASHED"
    assert list(runs.iterdir()) == []


def look_state(run_id: UUID) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
    assert state is not None
    return state.type.value


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
        runner.run(plan, make_session(plan))
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
    session = make_session(plan)
    assert list(runner.run(plan, session)) == ["ok-0"]
    assert look(session).state()[0] == "COMPLETED"
    assert not (tmp_path / "prefect" / "server.json").exists()
    assert runner.prefect.status().local is False
    assert runner.stop() is False


def test_a_second_ctrl_c_ends_the_run_as_crashed(
    runner: PrefectRunner, served: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("ok", "interrupt", "ok")
    session = make_session(plan)
    with pytest.raises(KeyboardInterrupt):
        runner.run(plan, session)
    assert capfd.readouterr() == ("", "")
    found = look(session, "ok-0", "interrupt-1")
    assert found.state()[0] == found.state("interrupt-1")[0] == "CRASHED"
    assert "ok-2" not in found.tasks
    runner.run(make_plan("ok"), make_session(make_plan("ok")))
    assert list((served / "prefect" / "runs").iterdir()) == []


def test_a_run_that_somebody_ends_behind_our_back_still_has_its_results(runner: PrefectRunner) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    def meddle(step: Step, session: Session, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        if step.name == "ok-1":
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(flow_run_id(session), Cancelled(), force=True)
        return execute(step, session, done)

    runner._execute = meddle
    plan = make_plan("ok", "ok")
    assert list(runner.run(plan, make_session(plan))) == ["ok-0", "ok-1"]
    assert list((runner.prefect.folder / "runs").iterdir()) == []


def test_trouble_that_is_not_the_steps_costs_the_page_only(
    runner: PrefectRunner, caplog: pytest.LogCaptureFixture
) -> None:
    class NoPage:
        def page(self, run_id: str) -> str:
            raise RuntimeError("no page today")

    plan = make_plan("ok", "ok")
    session = make_session(plan)
    session.tracking = NoPage()  # type: ignore[assignment]
    assert list(runner.run(plan, session)) == ["ok-0", "ok-1"]
    assert "Prefect cannot go on with this run" in caplog.text
    assert "no page today" in caplog.text
    found = Looked(flow_run_id(session), set())
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
        assert list(runner.run(plan, make_session(plan))) == ["ok-0"]
        assert not (runs / f"{unknown}.json").exists()
        assert elsewhere.exists()
    finally:
        for left in runs.iterdir():
            left.unlink()


def test_what_llsflow_logs_stands_on_the_page_too(runner: PrefectRunner) -> None:
    plan = make_plan("log")
    session = make_session(plan)
    listener = logging.NullHandler()
    logging.getLogger("llsflow").addHandler(listener)
    try:
        runner.run(plan, session)
    finally:
        logging.getLogger("llsflow").removeHandler(listener)
    found = look(session)
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
    out, err = child.communicate(timeout=90)
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
    PrefectRunner(execute).run(plan, make_session(plan))
    found = Looked(UUID(said["flow_url"].rpartition("/")[2]), set())
    assert found.state() == ("COMPLETED", "Completed", "3 steps run, 0 skipped")
    assert {found.state(name)[0] for name in found.tasks} <= {"COMPLETED"}
    assert list((home / "prefect" / "runs").iterdir()) == []


def test_errors_are_all_ours(runner: PrefectRunner) -> None:
    """A server that refuses the run is one sentence, before any step."""
    plan = make_plan("ok", name="x")
    session = make_session(plan)
    runner.prefect.wait()
    plan = plan.model_copy(update={"experiment": plan.experiment.model_copy(update={"name": "x\ud800"})})
    with pytest.raises(LlsflowError, match="did not take the run"):
        runner.run(plan, session)
    assert not began_file("ok-0").exists()
