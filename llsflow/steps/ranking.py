"""Rerankers within an evaluation: the order of each row's items, kept as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from llsflow.data.conversation import Row
from llsflow.data.ranked import ranked_row
from llsflow.errors import Stopped
from llsflow.models.generation import Generation
from llsflow.rerank import Asked, as_answer, rank_by_words
from llsflow.schema.benchmarks import ExperimentBenchmark, RerankCandidate
from llsflow.schema.models import ModelConfig
from llsflow.steps.context import StepContext
from llsflow.steps.inputs import model_folder

Ranking = Sequence[float] | ValueError
Told = Callable[[int, Ranking], None]
"""A row's place, and its items' scores or why there are none."""


def rank_rows(
    context: StepContext,
    benchmark: ExperimentBenchmark,
    rows: Sequence[Row],
    done: Mapping[int, Generation],
    on_generation: Callable[[int, Generation], None],
) -> list[Generation]:
    """Return the order of each row's items as a generation's text; those of `done` are not ranked again.

    Raises:
        ModelError: the reranker cannot be loaded.
        UnavailableError: an endpoint does not answer at all.
        Stopped: the user asked to stop.
    """
    candidate = benchmark.benchmark_config.eval_candidate
    assert isinstance(candidate, RerankCandidate)  # noqa: S101 - the caller has looked
    made = dict(done)
    asked = {place: ranked_row(row) for place, row in enumerate(rows)}

    def keep(place: int, scores: Ranking) -> None:
        query = asked[place].query
        if isinstance(scores, ValueError):
            made[place] = Generation("", 0, "stop", query, str(scores))
        else:
            made[place] = Generation(as_answer(scores, candidate.max_num_results), 0, "stop", query)
        on_generation(place, made[place])

    missing = {place: (row.query, row.items) for place, row in asked.items() if place not in made}
    if missing:
        _rank(context, missing, benchmark.batch_size, keep)
    return [made[place] for place in range(len(rows))]


def _rank(context: StepContext, asked: Asked, batch_size: int, told: Told) -> None:
    where = context.step.locations
    model = ModelConfig.model_validate(where["elsewhere"]) if where["elsewhere"] else None
    if model and model.endpoint:
        from llsflow.models.remote import RemoteModel

        RemoteModel.of(model).rank(asked, on_ranking=told, stopping=context.plan_run.stopping)
        return
    scores = _by_words if model else _by_weights(context, batch_size)
    for place, (query, items) in asked.items():
        if context.plan_run.stopping():
            raise Stopped("stopped while ranking")
        told(place, scores(query, items))


def _by_words(query: str, items: Sequence[str]) -> Sequence[float]:
    return rank_by_words({0: (query, items)})[0]


def _by_weights(context: StepContext, batch_size: int) -> Callable[[str, Sequence[str]], Sequence[float]]:
    from llsflow.models.load import model_folder as folder_of
    from llsflow.models.ranking import RankingModel

    where = context.step.locations
    folder = folder_of(model_folder(context), where["tokenizer"]["revision"], nested=True)
    model = RankingModel.load(
        folder,
        dtype=context.step.settings["dtype"],
        device=where["device"],
        trust_remote_code=where["tokenizer"]["trust_remote_code"],
    )
    return partial(model.scores, batch_size=batch_size)
