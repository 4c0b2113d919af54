"""Step `compare`: a model against its baseline, on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.data.contamination import shared_passages
from llsflow.data.conversation import Row
from llsflow.data.dataset import rows_of, source_at
from llsflow.schema.benchmarks import Gate
from llsflow.schema.plan import StepResult
from llsflow.scorers.intervals import numeric, paired_difference
from llsflow.steps.context import StepContext
from llsflow.steps.evaluate import REPEATS, headline

MOST_NAMED = 100
"""Rows that the step's summary names."""


def run(context: StepContext) -> dict[str, Any]:
    """Return one table row for each scoring function: both scores, and their paired difference."""
    baseline, candidate = context.inputs["baseline"], context.inputs["candidate"]
    labels = context.step.settings["labels"]
    table = []
    for scorer in candidate.summary["scores"]:
        paired = paired_difference(_scores(baseline, scorer), _scores(candidate, scorer), context.step.settings["seed"])
        row = {"benchmark": candidate.summary["benchmark"], "scorer": scorer, "rows": candidate.summary["rows"]}
        for label, result in zip(labels, (baseline, candidate), strict=True):
            metric, value, interval = headline(result.summary["scores"][scorer])
            row |= {"metric": metric, label: value, f"{label}_interval": interval}
        table.append({**row, "difference": paired["difference"], "interval": paired["confidence_interval_95"]})
    context.run.log_metrics(
        {f"eval/{row['benchmark']}/difference": row["difference"] for row in table if row["difference"] is not None}
    )
    summary: dict[str, Any] = {"labels": labels, "table": table}
    if shared := _shared_passages(context):
        summary |= {"shared_passages": len(shared), "shared_rows": [place + 1 for place in shared[:MOST_NAMED]]}
    if gate := context.step.settings.get("gate"):
        summary["gate"] = {"failures": failures(table, labels, Gate.model_validate(gate))}
    return summary


def _shared_passages(context: StepContext) -> list[int]:
    """Return the places of the benchmark's rows that repeat a passage of the training data."""
    places = context.step.locations["data"]
    if not places:
        return []
    judged = _rows(places["judged"])
    return shared_passages(_rows(places["training"]), list(judged)[: context.step.settings["num_examples"]])


def _rows(place: Mapping[str, Any]) -> Iterator[Row]:
    """Yield rows that are read when the first is asked for: where no row holds a passage, none of training is read."""
    for _, row in rows_of(source_at(place), place["dataset_id"]):
        yield row


def failures(table: list[dict[str, Any]], labels: Sequence[str], gate: Gate) -> list[str]:
    """Return a sentence for each scoring function by which the candidate is worse than the gate allows.

    Worse is what chance does not explain: the whole 95 % interval of the paired difference lies below the tolerance.
    """
    baseline, candidate = labels
    found = []
    for row in table:
        if gate.scoring_functions and row["scorer"] not in gate.scoring_functions:
            continue
        where = f"{row['benchmark']}, {row['scorer']}"
        if row["difference"] is None:
            found.append(f"{where}: no row could be scored for both models")
        elif row["interval"] and row["interval"][1] < -gate.tolerance:
            low, high = row["interval"]
            allowed = f"at most {gate.tolerance:g} worse" if gate.tolerance else "none worse"
            found.append(
                f"{where}: {row['metric']} {row[baseline]:.4g} ({baseline}) and {row[candidate]:.4g} ({candidate}), a "
                f"difference of {row['difference']:.4g} (95 % interval {low:.4g} to {high:.4g}); allowed is {allowed}"
            )
    return found


def _scores(result: StepResult, scorer: str) -> list[Any]:
    """Return each row's score; of a benchmark with repeats their mean, where all are numbers."""
    response = home.read_json(Path(result.folder) / "response.json") or {}
    first = [row["score"] for row in response["scores"][scorer]["score_rows"]]
    repeats = home.read_json(Path(result.folder) / REPEATS)
    if repeats is None:
        return first
    rows = [numeric(scores) for scores in zip(*(one[scorer] for one in repeats), strict=True)]
    return [float(scores.mean()) for scores in rows]
