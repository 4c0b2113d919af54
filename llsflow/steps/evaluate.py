"""Step `evaluate`: a model's answers to a benchmark's rows, and their scores."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llsflow import home
from llsflow.data.conversation import Conversation, Row
from llsflow.data.dataset import rows_of, source_at
from llsflow.evals import counted, evaluate, per_row_table, questions, score_generations
from llsflow.models.generation import Generation
from llsflow.schema.benchmarks import ExperimentBenchmark, ModelCandidate
from llsflow.schema.scoring import ScoringResult
from llsflow.steps.answers import answer_rows
from llsflow.steps.context import StepContext
from llsflow.steps.judging import Asker

REPEATS = "repeats.json"
HEADLINES = ("accuracy", "weighted_average", "average", "median")
"""The aggregation that stands for a scoring function in tables, the first that it has."""

MOST_NAMED = 100
"""Rows that a step's summary names."""


def run(context: StepContext) -> dict[str, Any]:
    """Write `response.json` (the spec's EvaluateResponse) and `rows.jsonl` (one line a row).

    Of a benchmark with repeats they hold the first answers, and `repeats.json` the scores of all, in their order.
    """
    settings, where = context.step.settings, context.step.locations
    benchmark = ExperimentBenchmark.model_validate({**settings["benchmark"], **where["benchmark"]})
    config = benchmark.benchmark_config
    candidate = config.eval_candidate
    system = candidate.system_message if isinstance(candidate, ModelCandidate) else None
    source = source_at(where["data"])
    rows = [row for _, row in rows_of(source, benchmark.dataset_id)][: config.num_examples]
    made: list[Generation] = []
    ask = Asker(context)

    def generate(conversations: list[Conversation]) -> list[dict[str, Any]]:
        made.extend(answer_rows(context, benchmark, conversations * benchmark.repeats, rows * benchmark.repeats))
        return [generation.record() for generation in made[: len(rows)]]

    response = evaluate(
        rows,
        generate,
        benchmark.scoring_functions,
        scoring_params=config.scoring_params,
        system_message=system.content if system else None,
        ask=ask,
    )
    every = [response.scores, *_further_scores(ask, benchmark, rows, made)]
    table = per_row_table(rows, [generation.prompt for generation in made[: len(rows)]], response)
    home.write_json(context.folder / "response.json", response.model_dump(mode="json"))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    home.write_aside(context.folder / "rows.jsonl", lines)
    if len(every) > 1:
        kept = [{name: [row["score"] for row in one[name].score_rows] for name in one} for one in every]
        home.write_json(context.folder / REPEATS, kept)
    scores = {name: result.aggregated_results for name, result in response.scores.items()}
    context.run.log_dataset(benchmark.dataset_id, settings["data"]["digest"], len(rows), source.name, context="eval")
    context.run.log_metrics(flat_metrics(f"eval/{benchmark.benchmark_id}", scores))
    context.run.log_table(table, "rows.json")
    failed = _rows_where(made, rows, lambda generation: generation.error is not None)
    not_judged = {place + 1 for place in ask.unanswered}
    passing = {*_rows_where(made, rows, lambda generation: generation.passing), *not_judged}
    counts = counted([generation.record() for generation in made])
    return {
        "benchmark": benchmark.benchmark_id,
        "rows": len(rows),
        "scores": scores,
        **({"noise": {name: noise([one[name] for one in every]) for name in scores}} if len(every) > 1 else {}),
        **({"failed": len(failed), "failed_rows": failed[:MOST_NAMED]} if failed else {}),
        "counts": counts.model_dump(mode="json"),
        **({"not_judged": len(not_judged)} if not_judged else {}),
        **({"unanswered": len(passing)} if passing else {}),
    }


def _rows_where(made: Sequence[Generation], rows: Sequence[Row], so: Callable[[Generation], bool]) -> list[int]:
    """Return the numbers of the rows, from 1, of which an answer is so."""
    return sorted({index % len(rows) + 1 for index, generation in enumerate(made) if so(generation)})


def _further_scores(
    ask: Asker, benchmark: ExperimentBenchmark, rows: Sequence[Row], made: Sequence[Generation]
) -> Iterator[dict[str, ScoringResult]]:
    """Yield the scores of each time after the first that the rows were answered."""
    if len(made) == len(rows):
        return
    asked = questions(rows, benchmark.scoring_functions)
    params = benchmark.benchmark_config.scoring_params
    for start in range(len(rows), len(made), len(rows)):
        answers = [generation.record() for generation in made[start : start + len(rows)]]
        yield score_generations(asked, answers, benchmark.scoring_functions, params, ask)


def noise(results: Sequence[ScoringResult]) -> dict[str, Any]:
    """Return the score that stands for a scoring function, of each time, and their mean and standard deviation."""
    values = [value for result in results if (value := headline(result.aggregated_results)[1]) is not None]
    return {
        "values": values,
        "mean": statistics.fmean(values) if values else None,
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
    }


def headline(metrics: Mapping[str, Mapping[str, Any]]) -> tuple[str, float | None, list[float] | None]:
    """Return name, value and 95 % interval of the aggregation that stands for a scoring function."""
    for name in HEADLINES:
        if name in metrics:
            return name, metrics[name][name], metrics[name].get("confidence_interval_95")
    return next(iter(metrics), ""), None, None


def flat_metrics(prefix: str, scores: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return each aggregation's number, and the ends of its 95 % interval, under a name of its own.

    Counts stay in the result: every name becomes a chart on the run's page.
    """
    several = len(scores) > 1
    flat: dict[str, float] = {}
    for scorer, metrics in scores.items():
        place = "/".join([prefix, *([scorer.replace("::", ".")] if several else [])])
        for metric, values in metrics.items():
            value = values.get(metric)
            if isinstance(value, int | float):
                flat[f"{place}/{metric}"] = float(value)
            if interval := values.get("confidence_interval_95"):
                flat |= {f"{place}/{metric}_ci95_{end}": at for end, at in zip(("low", "high"), interval, strict=True)}
    return flat
