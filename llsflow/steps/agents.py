"""An agent answers a benchmark's rows: its model is served in this process, or answers behind its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from llsflow.agents.traces import EndedTurn, trace_of
from llsflow.data.conversation import Conversation
from llsflow.models.generation import Generation
from llsflow.models.remote import RemoteModel
from llsflow.schema.benchmarks import AgentCandidate, ExperimentBenchmark
from llsflow.schema.models import ModelConfig
from llsflow.schema.shields import ShieldConfig
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.schema.traces import TurnTrace
from llsflow.steps.context import StepContext
from llsflow.steps.inputs import model_folder

TRACES_TOGETHER = 20


def agent_answers(
    context: StepContext,
    benchmark: ExperimentBenchmark,
    conversations: Sequence[Conversation],
    done: dict[int, Generation],
    on_generation: Callable[[int, Generation], None],
) -> list[Generation]:
    """Return what the agent answers to each conversation.

    Raises:
        ConfigError: the agent cannot be made.
        UnavailableError: its endpoint does not answer at all, or what its tools need is missing.
        Stopped: the user asked to stop.
    """
    from llsflow.agents.candidate import AgentCandidateAnswers, named, no_judge
    from llsflow.agents.standalone import StandaloneAgent

    candidate = benchmark.benchmark_config.eval_candidate
    assert isinstance(candidate, AgentCandidate)  # noqa: S101 - asked of agents only
    settings = context.step.settings
    groups = {name: ToolGroupConfig.model_validate(one) for name, one in settings["agent"]["toolgroups"].items()}
    shields = {name: ShieldConfig.model_validate(one) for name, one in settings["agent"]["shields"].items()}
    waiting = _Traces(context)
    missing = {place: said for place, said in enumerate(conversations) if place not in done}
    with _answering(context, benchmark) as (model, remote):
        find_group, find_shield = partial(named, groups, "tool group"), partial(named, shields, "shield")
        agent = StandaloneAgent(candidate.config, model, remote, find_group, find_shield, no_judge, waiting.add)
        answers = AgentCandidateAnswers(agent, at_once=remote.endpoint.at_once, seed=settings["seed"])
        made = answers.answer(missing, on_generation=on_generation, stopping=context.plan_run.stopping)
    waiting.write()
    every = {**done, **made}
    return [every[place] for place in range(len(conversations))]


@dataclass
class _Traces:
    """Traces on their way to the run's page, many at a time."""

    context: StepContext
    waiting: list[TurnTrace] = field(default_factory=list)

    def add(self, turn: EndedTurn) -> None:
        """Take a turn that ended."""
        self.waiting.append(trace_of(turn))
        if len(self.waiting) >= TRACES_TOGETHER:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        waiting, self.waiting = self.waiting, []
        self.context.run.log_traces(waiting)


@contextmanager
def _answering(context: StepContext, benchmark: ExperimentBenchmark) -> Iterator[tuple[ModelConfig, RemoteModel]]:
    """Yield the agent's model, and where it answers."""
    where = context.step.locations
    if where["elsewhere"]:
        model = ModelConfig.model_validate(where["elsewhere"])
        yield model, RemoteModel.of(model)
        return
    from llsflow.models.engine import serving_one

    loading = {name: value for name, value in where["tokenizer"].items() if value is not None}
    model = ModelConfig(model_id="candidate", path=model_folder(context), **loading)
    size, dtype = benchmark.batch_size, context.step.settings["dtype"]
    with serving_one(model, batch_size=size, device=where["device"], dtype=dtype) as url:
        yield model, RemoteModel.of_engine(url, model.model_id, at_once=size)
