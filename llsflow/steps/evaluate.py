"""Step `evaluate`: a model's answers to a benchmark's rows, and their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.data.conversation import Conversation
from llsflow.data.dataset import DatasetSource, rows_of
from llsflow.evals import evaluate, per_row_table
from llsflow.models.local import Generation, LocalModel
from llsflow.schema.benchmarks import ExperimentBenchmark, ModelCandidate
from llsflow.schema.datasets import DatasetConfig
from llsflow.steps import generations
from llsflow.steps.context import Progress, StepContext
from llsflow.steps.prepare import model_folder


def run(context: StepContext) -> dict[str, Any]:
    """Write `response.json` (the spec's EvaluateResponse) and `rows.jsonl` (one line a row)."""
    settings, where = context.step.settings, context.step.locations
    benchmark = ExperimentBenchmark.model_validate({**settings["benchmark"], **where["benchmark"]})
    config = benchmark.benchmark_config
    candidate = config.eval_candidate
    assert isinstance(candidate, ModelCandidate)  # noqa: S101 - the schema refused agents
    data = where["data"]
    source = DatasetSource(DatasetConfig.model_validate(data["config"]), Path(data["path"]) if data["path"] else None)
    rows = [row for _, row in rows_of(source, benchmark.dataset_id)][: config.num_examples]
    model = LocalModel.load(
        model_folder(context), dtype=settings["dtype"], device=where["device"], **where["tokenizer"]
    )
    made: list[Generation] = []

    def generate(conversations: list[Conversation]) -> list[str]:
        made.extend(_generate(context, model, benchmark, conversations))
        return [generation.text for generation in made]

    response = evaluate(
        rows,
        generate,
        benchmark.scoring_functions,
        scoring_params=config.scoring_params,
        system_message=candidate.system_message.content if candidate.system_message else None,
    )
    table = per_row_table(rows, [generation.prompt for generation in made], response)
    home.write_json(context.folder / "response.json", response.model_dump(mode="json"))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    home.write_aside(context.folder / "rows.jsonl", lines)
    scores = {name: result.aggregated_results for name, result in response.scores.items()}
    context.run.log_dataset(benchmark.dataset_id, settings["data"]["digest"], len(rows), source.name, context="eval")
    context.run.log_metrics(flat_metrics(f"eval/{benchmark.benchmark_id}", scores))
    context.run.log_table(table, "rows.json")
    return {"benchmark": benchmark.benchmark_id, "model": where["label"], "rows": len(rows), "scores": scores}


def _generate(
    context: StepContext, model: LocalModel, benchmark: ExperimentBenchmark, conversations: list[Conversation]
) -> list[Generation]:
    """Return a generation for each conversation, going on at the rows that an earlier try did not reach."""
    candidate = benchmark.benchmark_config.eval_candidate
    assert isinstance(candidate, ModelCandidate)  # noqa: S101 - the schema refused agents
    with generations.keeping(context.folder) as (found, keeper):
        done = {index: generation for index, generation in found.items() if index < len(conversations)}
        finished = len(done)
        context.report(Progress(finished, len(conversations), "rows"))

        def on_generation(index: int, generation: Generation) -> None:
            nonlocal finished
            finished += 1
            keeper.add(index, generation)
            context.report(Progress(finished, len(conversations), "rows"))

        return model.generate(
            conversations,
            candidate.sampling_params,
            batch_size=benchmark.batch_size,
            seed=context.step.settings["seed"],
            done=done,
            on_generation=on_generation,
            stopping=context.plan_run.stopping,
        )


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
