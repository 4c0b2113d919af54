"""Step `record`: the report, and in MLflow what a reviewer looks for on the run's page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.report import Comparison, ReportMaterial, Sample, Score, build_report
from llsflow.schema.experiment import Experiment, registered_name
from llsflow.schema.plan import StepResult
from llsflow.schema.scoring import AnswerCounts
from llsflow.steps import copies
from llsflow.steps.checkpoints import exported_checkpoint
from llsflow.steps.context import StepContext
from llsflow.steps.evaluate import flat_metrics, headline
from llsflow.tracking import Run, provenance

SAMPLES = 8
"""Rows shown with the answers of each model."""


def run(context: StepContext) -> dict[str, Any]:
    """Write `report.html`, `report.md` and `plots/`, and record the run's results."""
    experiment = Experiment.model_validate(context.step.settings["experiment"])
    inputs = context.inputs
    curves = _curves(inputs)
    material = _material(context, experiment, curves)
    files = build_report(context.folder, material)
    page = context.plan_run.run
    for file in files:
        page.log_file(file, file.parent.relative_to(context.folder).as_posix().removeprefix("."))
    page.log_table([dict(row) for row in material.rows], "rows.json")
    _log_datasets(page, context)
    for name, points in curves.items():
        for step, value in points:
            page.log_metrics({name: value}, step)
    metrics = _log_scores(page, inputs)
    page.set_note(_note(material))
    summary: dict[str, Any] = {"report": "report.html"}
    if "compare" in inputs:
        summary |= {name: inputs["compare"].summary[name] for name in ("labels", "table")}
    if "export" in inputs:
        summary |= _log_model(page, experiment, inputs["export"], metrics)
        if experiment.recipe and experiment.recipe.checkpoint_dir:
            target = Path(experiment.recipe.checkpoint_dir)
            copies.copy(Path(inputs["export"].folder) / "model", target, inputs["export"].key)
            summary["checkpoint_dir"] = str(target)
    return summary


def _curves(inputs: Mapping[str, StepResult]) -> dict[str, list[tuple[int, float]]]:
    if "train" not in inputs:
        return {}
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in (Path(inputs["train"].folder) / "curves.jsonl").read_text("utf-8").splitlines():
        point = json.loads(line)
        for name, value in point["metrics"].items():
            curves.setdefault(name, []).append((point["step"], value))
    return curves


def _evaluations(inputs: Mapping[str, StepResult]) -> dict[str, StepResult]:
    """Return the evaluations by label, the baseline's first."""
    found = {name: result for name, result in inputs.items() if result.kind == "evaluate"}
    return {name.removeprefix("evaluate-"): found[name] for name in sorted(found, key=list(inputs).index)}


def _material(
    context: StepContext, experiment: Experiment, curves: dict[str, list[tuple[int, float]]]
) -> ReportMaterial:
    inputs = context.inputs
    evaluations = _evaluations(inputs)
    rows = {name: _rows(result) for name, result in evaluations.items()}
    preview = home.read_json(Path(inputs["prepare"].folder) / "preview.json") if "prepare" in inputs else None
    plan_run = context.plan_run
    links = {"MLflow run": plan_run.tracking.page(plan_run.run.id)}
    if plan_run.flow_url:
        links["Prefect flow run"] = plan_run.flow_url
    return ReportMaterial(
        title=experiment.name,
        description=experiment.description,
        verdict=_verdict(inputs),
        facts=_facts(experiment, inputs),
        scores=[
            Score(name, f"{scorer} {metric}", value, interval)
            for name, result in evaluations.items()
            for scorer, metrics in result.summary["scores"].items()
            for metric, value, interval in [headline(metrics)]
        ],
        comparisons=[
            Comparison(f"{row['scorer']} {row['metric']}", row["difference"], row["interval"])
            for row in (inputs["compare"].summary["table"] if "compare" in inputs else [])
        ],
        curves=curves,
        samples=_samples(rows),
        preview=preview or (),
        rows=_joined(rows),
        command=plan_run.origin.command,
        links=links,
        provenance=provenance(),
    )


def _rows(result: StepResult) -> list[dict[str, Any]]:
    lines = (Path(result.folder) / "rows.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _samples(rows: dict[str, list[dict[str, Any]]]) -> list[Sample]:
    first = next(iter(rows.values()), [])
    return [
        Sample(
            row["prompt"],
            row["expected"],
            {name: table[index]["generated"] for name, table in rows.items()},
        )
        for index, row in enumerate(first[:SAMPLES])
    ]


def _joined(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one table row for each benchmark row, with every candidate's answer and scores."""
    joined: list[dict[str, Any]] = []
    for name, table in rows.items():
        for index, row in enumerate(table):
            if index == len(joined):
                joined.append({key: row[key] for key in ("index", "prompt", "expected")})
            own = {key: value for key, value in row.items() if key not in ("index", "prompt", "expected")}
            joined[index] |= {f"{name} {key}": value for key, value in own.items()}
    return joined


def _facts(experiment: Experiment, inputs: Mapping[str, StepResult]) -> dict[str, Any]:
    facts: dict[str, Any] = {"model": experiment.model.model_id, "seed": experiment.seed}
    if "train" in inputs:
        prepared, trained = inputs["prepare"].summary["train"], inputs["train"].summary
        facts["data"] = experiment.dataset.dataset_id if experiment.dataset else ""
        facts["training rows"] = f"{prepared['rows']:,}"
        facts["tokens"] = f"{prepared['tokens']:,}, {prepared['loss_tokens'] / prepared['tokens']:.0%} under loss"
        facts["parameters"] = f"{trained['parameters']:,}"
        if trained["learning"] != trained["parameters"]:
            facts["parameters that learn"] = f"{trained['learning']:,}"
        facts["optimizer steps"] = f"{trained['steps']:,}"
        facts["final training loss"] = trained["train_loss"]
        if trained["validation_loss"] is not None:
            facts["final validation loss"] = trained["validation_loss"]
        if "export" in inputs:
            facts["exported checkpoint"] = exported_checkpoint(inputs["export"].summary["checkpoint"])
        if accuracy := trained["validation"].get("reward_accuracy"):
            facts["held-out reward accuracy"] = f"{accuracy['first']:.3f} before, {accuracy['last']:.3f} after"
    if experiment.benchmark:
        facts["benchmark"] = experiment.benchmark.benchmark_id
    if compared := (inputs["compare"].summary if "compare" in inputs else {}).get("shared_passages"):
        named = inputs["compare"].summary["shared_rows"]
        facts["rows that repeat a passage of the training data"] = f"{compared:,}: {_some(named)}"
    if gate := (inputs["compare"].summary.get("gate") if "compare" in inputs else None):
        facts["gate"] = "; ".join(gate["failures"]) or "passed"
    return {**facts, **_facts_of_answers(inputs)}


def _facts_of_answers(inputs: Mapping[str, StepResult]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, result in _evaluations(inputs).items():
        for scorer, spread in result.summary.get("noise", {}).items():
            facts[f"{scorer}, {name}, answered {len(spread['values'])} times"] = _spread(spread)
        if words := AnswerCounts.model_validate(result.summary["counts"]).words:
            facts[f"answers, {name}"] = words
        if named := result.summary.get("failed_rows"):
            facts[f"rows without an answer, {name}"] = f"{result.summary['failed']:,}: {_some(named)}"
    return facts


def _spread(noise: Mapping[str, Any]) -> str:
    if noise["standard_deviation"] is None:
        return "no numbers"
    return f"mean {noise['mean']:.3f}, standard deviation {noise['standard_deviation']:.3f}"


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:SAMPLES])) + (", …" if len(numbers) > SAMPLES else "")


def _verdict(inputs: Mapping[str, StepResult]) -> str:
    if "compare" not in inputs:
        return ""
    row, (first, second) = inputs["compare"].summary["table"][0], inputs["compare"].summary["labels"]
    if row["difference"] is None:
        return f"{row['benchmark']}: no row could be scored for both models."
    low, high = row["interval"]
    judged = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return (
        f"{row['benchmark']}: {row['metric']} {row[first]:.3f} ({first}), {row[second]:.3f} ({second}), on "
        f"{row['rows']} rows held out; {judged} the {first} at 95 % confidence."
    )


def _log_datasets(page: Run, context: StepContext) -> None:
    """Name the data on the run's own page too, whether or not its steps ran this time."""
    told = False
    for step in context.plan_run.plan.steps:
        data = step.locations.get("data", {})
        if step.kind == "prepare":
            for part, place in data.items():
                rows = context.inputs[step.name].summary[part]["rows"]
                digest = step.settings["data"][part]["digest"]
                source = place["path"] or "rows of the configuration"
                page.log_dataset(
                    place["dataset_id"], digest, rows, source, "training" if part == "train" else "validation"
                )
        elif step.kind == "evaluate" and not told:
            told = True  # every model answers the same rows
            rows = context.inputs[step.name].summary["rows"]
            source = data["path"] or "rows of the configuration"
            page.log_dataset(data["dataset_id"], step.settings["data"]["digest"], rows, source, "eval")


def _log_scores(page: Run, inputs: Mapping[str, StepResult]) -> dict[str, float]:
    """Log every score under `eval/<benchmark>/<metric>`, the baseline's apart, and return the trained model's."""
    tuned: dict[str, float] = {}
    for name, result in _evaluations(inputs).items():
        prefix = f"eval/{result.summary['benchmark']}"
        judged = name in ("tuned", "candidate")
        metrics = flat_metrics(prefix if judged else f"{prefix}/{name}", result.summary["scores"])
        page.log_metrics(metrics)
        if name == "tuned":
            tuned = metrics
    for row in inputs["compare"].summary["table"] if "compare" in inputs else []:
        if row["difference"] is not None:
            page.log_metrics({f"eval/{row['benchmark']}/difference": row["difference"]})
    return tuned


def _log_model(page: Run, experiment: Experiment, export: StepResult, metrics: dict[str, float]) -> dict[str, Any]:
    folder = Path(export.folder) / "model"
    params = {"base": experiment.model.model_id, "dtype": export.summary["dtype"]}
    name = f"{experiment.name}-{experiment.model.model_id}".replace("/", "-").replace(":", "-")
    model_id = page.log_model(name, folder, params, metrics)
    registered = registered_name(experiment)
    if registered is None:
        return {"model_id": model_id}
    return {"model_id": model_id, "version": page.register(registered, model_id, folder)}


def _note(material: ReportMaterial) -> str:
    """Return the Markdown at the top of the run's page: what, on what, with which result, and how to do it again."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in material.facts.items())
    links = " · ".join(f"[{text}]({address})" for text, address in material.links.items())
    return (
        f"**{material.verdict or material.description}**\n\n| | |\n|---|---|\n{facts}\n\n"
        f"Again: `{material.command}`\n\n{links} · report: artifacts, `report.html`"
    )
