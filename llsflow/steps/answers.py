"""Who answers a benchmark's rows: a model or reranker here or behind an endpoint; each answer is kept as it comes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from llsflow import home
from llsflow.data.conversation import Conversation, Row
from llsflow.models.generation import Generation
from llsflow.models.local import LocalModel
from llsflow.models.remote import RemoteModel
from llsflow.schema.benchmarks import AgentCandidate, ExperimentBenchmark, ModelCandidate, RerankCandidate
from llsflow.schema.models import ModelConfig
from llsflow.steps import generations
from llsflow.steps.context import Progress, StepContext
from llsflow.steps.inputs import model_folder
from llsflow.steps.ranking import rank_rows
from llsflow.steps.results import GENERATIONS, generations_folder


def answer_rows(
    context: StepContext,
    benchmark: ExperimentBenchmark,
    conversations: Sequence[Conversation],
    rows: Sequence[Row],
) -> list[Generation]:
    """Return a generation for each conversation; those that are kept are not made again.

    Rerankers are asked what the conversations' `rows` ask.

    Raises:
        DataError: rows that the model cannot take; nothing was generated.
        UnavailableError: an endpoint does not answer at all.
        Stopped: the user asked to stop.
    """
    kept = generations_folder(context.step)
    with (
        home.locked(f"generations-{kept.name}", "an evaluation that asks the same", context.plan_run.stopping),
        generations.keeping(kept) as (found, keeper),
    ):
        done = {index: generation for index, generation in found.items() if index < len(conversations)}
        watch = _Watch(context, len(conversations), len(done))

        def on_generation(index: int, generation: Generation) -> None:
            if not generation.passing:  # what may be answered later is asked again by the next run
                keeper.add(index, generation)
            watch.one_more()

        if isinstance(benchmark.benchmark_config.eval_candidate, RerankCandidate):
            made = rank_rows(context, benchmark, rows, done, on_generation)
        elif isinstance(benchmark.benchmark_config.eval_candidate, AgentCandidate):
            from llsflow.steps.agents import agent_answers  # not part of the key of an evaluation without agents

            made = agent_answers(context, benchmark, conversations, done, on_generation)
        else:
            answer = _endpoint(context) if context.step.locations["elsewhere"] else _local(context)
            made = answer(benchmark, conversations, done, on_generation)
        with home.storage_errors(home.home()):
            shutil.copyfile(kept / GENERATIONS, context.folder / GENERATIONS)
        return made


class _Watch:
    """Tells how many rows are done, and how many a second."""

    def __init__(self, context: StepContext, total: int, done: int) -> None:
        self.context, self.total, self.done = context, total, done
        self.before, self.began = done, time.monotonic()
        self.tell()

    def one_more(self) -> None:
        """Count a row."""
        self.done += 1
        self.tell()

    def tell(self) -> None:
        """Report where it is."""
        seconds = time.monotonic() - self.began
        rate = {"rows/s": (self.done - self.before) / seconds} if self.done > self.before and seconds > 0 else {}
        self.context.report(Progress(self.done, self.total, "rows", rate))


Answered = Callable[
    [ExperimentBenchmark, Sequence[Conversation], dict[int, Generation], Callable[[int, Generation], None]],
    list[Generation],
]


def _local(context: StepContext) -> Answered:
    where = context.step.locations

    def answer(
        benchmark: ExperimentBenchmark,
        conversations: Sequence[Conversation],
        done: dict[int, Generation],
        on_generation: Callable[[int, Generation], None],
    ) -> list[Generation]:
        model = LocalModel.load(
            model_folder(context), dtype=context.step.settings["dtype"], device=where["device"], **where["tokenizer"]
        )
        return model.generate(
            conversations,
            _candidate(benchmark).sampling_params,
            batch_size=benchmark.batch_size,
            seed=context.step.settings["seed"],
            response_format=benchmark.response_format,
            done=done,
            on_generation=on_generation,
            stopping=context.plan_run.stopping,
        )

    return answer


def _endpoint(context: StepContext) -> Answered:
    model = RemoteModel.of(ModelConfig.model_validate(context.step.locations["elsewhere"]))

    def answer(
        benchmark: ExperimentBenchmark,
        conversations: Sequence[Conversation],
        done: dict[int, Generation],
        on_generation: Callable[[int, Generation], None],
    ) -> list[Generation]:
        missing = {index: said for index, said in enumerate(conversations) if index not in done}
        made = model.answer(
            missing,
            _candidate(benchmark).sampling_params,
            seed=context.step.settings["seed"],
            response_format=benchmark.response_format,
            on_generation=on_generation,
            stopping=context.plan_run.stopping,
        )
        every: dict[int, Any] = {**done, **made}
        return [every[index] for index in range(len(conversations))]

    return answer


def _candidate(benchmark: ExperimentBenchmark) -> ModelCandidate:
    candidate = benchmark.benchmark_config.eval_candidate
    assert isinstance(candidate, ModelCandidate)  # noqa: S101 - asked of models only
    return candidate
