"""Plans run on a real Prefect server, and what a person finds on its page afterwards."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from flows.runner import PrefectRunner
from llsflow.errors import ModelError, Stopped, UnavailableError
from llsflow.schema.plan import Step, StepResult
from llsflow.steps.context import PlanRun, Progress
from tests.flows.flow_program import SENTENCE, began_file, execute, make_plan, make_plan_run, wait_for
from tests.flows.looking import flow_run_id, look


def test_every_step_is_a_task_run_and_the_page_says_what_happened(runner: PrefectRunner) -> None:
    plan = make_plan("ok", "skip", "ok", name="my.experiment")
    plan_run = make_plan_run(plan)
    results = runner.run(plan, plan_run)
    assert list(results) == ["ok-0", "skip-1", "ok-2"]
    assert results["ok-2"].folder == "/ok-2"
    found = look(plan_run)
    assert found.run.name == f"my.experiment-{plan.key[:8]}"
    assert set(found.run.tags) == {"llsflow", "my.experiment", "org/tiny"}
    assert found.run.parameters == {"experiment": "my.experiment", "plan": plan.key, "mlflow_run": plan_run.run.id}
    assert found.state() == ("COMPLETED", "Completed", "2 steps run, 1 skipped")
    assert set(found.tasks) == {"ok-0", "skip-1", "ok-2"}
    assert found.state("ok-0")[:2] == ("COMPLETED", "Completed")
    assert found.state("skip-1") == ("COMPLETED", "Skipped", "because of skip")


def test_the_graph_on_the_page_shows_what_needs_what(runner: PrefectRunner) -> None:
    plan = make_plan("ok", "ok", "skip", "ok")
    plan_run = make_plan_run(plan)
    runner.run(plan, plan_run)
    tasks = look(plan_run).tasks
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

    def remember(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        known.append(plan_run.flow_url)
        assert threading.current_thread() is threading.main_thread()
        return execute(step, plan_run, done)

    runner._execute = remember
    plan = make_plan("ok")
    plan_run = make_plan_run(plan)
    asked = plan_run.stopping
    runner.run(plan, plan_run)
    assert known == [plan_run.flow_url]
    assert plan_run.flow_url is not None
    assert plan_run.flow_url.startswith(runner.prefect.wait().removesuffix("/api"))
    assert plan_run.watchers == []
    assert plan_run.stopping is asked


def test_a_users_mistake_is_one_sentence_on_the_page_and_nothing_on_the_terminal(
    runner: PrefectRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("ok", "fail", "ok")
    plan_run = make_plan_run(plan)
    with pytest.raises(ModelError, match=SENTENCE):
        runner.run(plan, plan_run)
    assert capfd.readouterr() == ("", "")
    found = look(plan_run, "ok-0", "fail-1")
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
    plan_run = make_plan_run(plan)
    with pytest.raises(ValueError, match="a programming error") as raised:
        runner.run(plan, plan_run)
    assert "_bug" in [entry.name for entry in raised.traceback]
    assert capfd.readouterr() == ("", "")
    found = look(plan_run)
    assert found.state() == ("FAILED", "Failed", "ValueError: a programming error")
    assert [log for log in found.logs if "Traceback" in log.message and "flow_program" in log.message]


def test_a_stop_is_a_cancelled_run(runner: PrefectRunner) -> None:
    plan = make_plan("ok", "stop", "ok")
    plan_run = make_plan_run(plan)
    with pytest.raises(Stopped, match="stopped after step 30 of 300") as raised:
        runner.run(plan, plan_run)
    assert type(raised.value) is Stopped
    found = look(plan_run, "ok-0", "stop-1")
    assert found.state()[:2] == ("CANCELLED", "Cancelled")
    assert "step 30 of 300" in found.state()[2]
    assert found.state("stop-1")[:2] == ("CANCELLED", "Cancelled")


def test_cancel_on_the_page_stops_the_run(runner: PrefectRunner) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    def press_cancel(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id(plan_run), Cancelling())
        return execute(step, plan_run, done)

    runner._execute = press_cancel
    runner._listen_seconds = 0.05
    plan = make_plan("wait", "ok")
    plan_run = make_plan_run(plan)
    with pytest.raises(Stopped):
        runner.run(plan, plan_run)
    assert look(plan_run, "wait-0").state()[:2] == ("CANCELLED", "Cancelled")


@pytest.mark.parametrize(("failures", "works"), [(2, True), (3, False)])
def test_what_may_pass_is_tried_again(runner: PrefectRunner, failures: int, works: bool) -> None:
    plan = make_plan("flaky", kinds={0: "record"}, failures=failures)
    plan_run = make_plan_run(plan)
    began_file("flaky-0").with_suffix(".tries").unlink(missing_ok=True)
    if works:
        assert list(runner.run(plan, plan_run)) == ["flaky-0"]
    else:
        with pytest.raises(UnavailableError, match=r"does not answer \(try 3\)"):
            runner.run(plan, plan_run)
    found = look(plan_run)
    assert found.tasks["flaky-0"].run_count == 3
    expected = "COMPLETED" if works else "FAILED"
    assert found.state()[0] == found.state("flaky-0")[0] == expected


def test_only_kinds_that_say_so_are_tried_again(runner: PrefectRunner) -> None:
    plan = make_plan("flaky", failures=1)
    began_file("flaky-0").with_suffix(".tries").unlink(missing_ok=True)
    plan_run = make_plan_run(plan)
    with pytest.raises(UnavailableError, match=r"\(try 1\)"):
        runner.run(plan, plan_run)
    assert look(plan_run).tasks["flaky-0"].run_count == 1


def test_a_users_mistake_is_never_tried_again(runner: PrefectRunner) -> None:
    plan = make_plan("fail", kinds={0: "record"})
    plan_run = make_plan_run(plan)
    with pytest.raises(ModelError):
        runner.run(plan, plan_run)
    assert look(plan_run).tasks["fail-0"].run_count == 1


def test_the_page_has_the_link_the_table_and_the_progress(runner: PrefectRunner) -> None:
    table = [{"candidate": "base", "score": 0.0, "n": 200}, {"candidate": "tuned", "score": float("nan"), "n": 200}]
    plan = make_plan("progress", "ok", kinds={1: "compare"}, summary={"table": table})
    plan_run = make_plan_run(plan)
    runner.run(plan, plan_run)
    found = look(plan_run)
    by_type = {artifact.type: artifact for artifact in found.artifacts}
    assert sorted(artifact.type for artifact in found.artifacts) == ["markdown", "progress", "table"]
    assert by_type["markdown"].key == "mlflow-quickstart"
    assert by_type["markdown"].data == f"[MLflow run]({plan_run.tracking.page(plan_run.run.id)})"
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

    def bars(plan_run: PlanRun) -> list[Any]:
        of_run = filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[flow_run_id(plan_run)]))
        with get_client(sync_client=True) as client:
            return [found.data for found in client.read_artifacts(flow_run_filter=of_run) if found.type == "progress"]

    def report(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        for share in (10, 20, 30):
            for watcher in plan_run.watchers:
                watcher.progress(step, Progress(share, 40, "rows"))
            expected = [100.0 * share / 40]
            wait_for(lambda expected=expected: bars(plan_run) == expected, f"the bar at {share} of 40", 20)
        return execute(step, plan_run, done)

    runner._execute = report
    plan = make_plan("ok")
    plan_run = make_plan_run(plan)
    runner.run(plan, plan_run)
    assert bars(plan_run) == [75.0]


def test_a_table_of_something_else_is_left_out(runner: PrefectRunner) -> None:
    plan = make_plan("ok", kinds={0: "record"}, summary={"table": "none"})
    plan_run = make_plan_run(plan)
    runner.run(plan, plan_run)
    assert {artifact.type for artifact in look(plan_run).artifacts} == {"markdown"}


def test_the_callers_sigterm_handler_stays_in_place(runner: PrefectRunner) -> None:
    def ours(number: int, frame: Any) -> None:
        raise AssertionError("not sent here")

    seen: list[Any] = []

    def remember(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
        seen.append(signal.getsignal(signal.SIGTERM))
        return execute(step, plan_run, done)

    before = signal.signal(signal.SIGTERM, ours)
    try:
        runner._execute = remember
        plan = make_plan("ok")
        runner.run(plan, make_plan_run(plan))
        assert seen == [ours]
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
