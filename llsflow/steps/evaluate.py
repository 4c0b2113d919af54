"""Step `evaluate`: a model's answers to a benchmark's rows, and their scores."""

from __future__ import annotations

import json
from typing import Any

from llsflow import home
from llsflow.data.conversation import Conversation
from llsflow.data.dataset import rows_of, source_at
from llsflow.evals import evaluate, per_row_table
from llsflow.models.generation import Generation
from llsflow.schema.benchmarks import ExperimentBenchmark, ModelCandidate
from llsflow.steps.answers import answer_rows
from llsflow.steps.context import StepContext
from llsflow.steps.judging import asker

MOST_NAMED = 100
"""Rows that a step's summary names."""


def run(context: StepContext) -> dict[str, Any]:
    """Write `response.json` (the spec's EvaluateResponse) and `rows.jsonl` (one line a row)."""
    settings, where = context.step.settings, context.step.locations
    benchmark = ExperimentBenchmark.model_validate({**settings["benchmark"], **where["benchmark"]})
    config = benchmark.benchmark_config
    candidate = config.eval_candidate
    system = candidate.system_message if isinstance(candidate, ModelCandidate) else None
    source = source_at(where["data"])
    rows = [row for _, row in rows_of(source, benchmark.dataset_id)][: config.num_examples]
    made: list[Generation] = []

    def generate(conversations: list[Conversation]) -> list[dict[str, Any]]:
        made.extend(answer_rows(context, benchmark, conversations, rows))
        return [generation.record() for generation in made]

    response = evaluate(
        rows,
        generate,
        benchmark.scoring_functions,
        scoring_params=config.scoring_params,
        system_message=system.content if system else None,
        ask=asker(context),
    )
    table = per_row_table(rows, [generation.prompt for generation in made], response)
    home.write_json(context.folder / "response.json", response.model_dump(mode="json"))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    home.write_aside(context.folder / "rows.jsonl", lines)
    scores = {name: result.aggregated_results for name, result in response.scores.items()}
    context.run.log_dataset(benchmark.dataset_id, settings["data"]["digest"], len(rows), source.name, context="eval")
    context.run.log_metrics(flat_metrics(f"eval/{benchmark.benchmark_id}", scores))
    context.run.log_table(table, "rows.json")
    failed = [index + 1 for index, generation in enumerate(made) if generation.error]
    return {
        "benchmark": benchmark.benchmark_id,
        "model": where["label"],
        "rows": len(rows),
        "scores": scores,
        **({"failed": len(failed), "failed_rows": failed[:MOST_NAMED]} if failed else {}),
    }


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
