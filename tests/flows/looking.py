"""What a Prefect server knows of a run, as a test looks at it."""

from __future__ import annotations

from uuid import UUID

from llsflow.steps.context import PlanRun
from tests.flows.flow_program import wait_for


def flow_run_id(plan_run: PlanRun) -> UUID:
    assert plan_run.flow_url is not None
    return UUID(plan_run.flow_url.rpartition("/")[2])


def look(plan_run: PlanRun, *steps: str) -> Looked:
    """Return what the server knows, once it knows of these steps; without any, of all of the plan's."""
    return Looked(flow_run_id(plan_run), {*steps} or {step.name for step in plan_run.plan.steps})


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


def look_state(run_id: UUID) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
    assert state is not None
    return state.type.value
