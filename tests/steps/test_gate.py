"""The gate: what chance does not explain fails the run, and only one that passed is the champion."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llsflow.config import load_experiment
from llsflow.errors import ConfigError, GateError
from llsflow.plan import compile_plan
from llsflow.schema.benchmarks import Gate
from llsflow.schema.plan import Step, StepResult
from llsflow.schema.scoring import AggregationFunctionType
from llsflow.scorers import aggregate
from llsflow.steps import compare
from llsflow.steps.compare import failures
from llsflow.steps.context import Origin, PlanRun, StepContext
from llsflow.steps.execute import execute
from llsflow.steps.opening import open_plan_run
from tests.conftest import small_quickstart

SEEDS = range(20)
ROWS = 200
LABELS = ("base", "tuned")


def row(**changes: Any) -> dict[str, Any]:
    given = {"benchmark": "b", "scorer": "basic::equality", "metric": "accuracy", "base": 0.9, "tuned": 0.8}
    return {**given, "difference": -0.1, "interval": [-0.15, -0.05], **changes}


@pytest.mark.parametrize(
    ("changes", "gate", "passes"),
    [
        ({}, Gate(), False),
        ({"interval": [-0.15, 0.0]}, Gate(), True),
        ({"interval": [-0.15, -1e-9]}, Gate(), False),
        ({}, Gate(tolerance=0.05), True),
        ({}, Gate(tolerance=0.04), False),
        ({"difference": 0.2, "interval": [0.1, 0.3]}, Gate(), True),
        ({"difference": None, "interval": None}, Gate(), False),
        ({}, Gate(scoring_functions=["basic::subset_of"]), True),
        ({}, Gate(scoring_functions=["basic::equality"]), False),
    ],
)
def test_what_the_interval_leaves_to_chance_passes(changes: dict[str, Any], gate: Gate, passes: bool) -> None:
    assert (failures([row(**changes)], LABELS, gate) == []) is passes


def test_the_sentence_says_what_was_found_and_allowed() -> None:
    (sentence,) = failures([row()], LABELS, Gate(tolerance=0.01))
    assert sentence == (
        "b, basic::equality: accuracy 0.9 (base) and 0.8 (tuned), a difference of -0.1 (95 % interval -0.15 to "
        "-0.05); allowed is at most 0.01 worse"
    )


def place(dataset_id: str, purpose: str, *texts: str) -> dict[str, Any]:
    rows = [{"question": text, "answer": "x"} for text in texts]
    return {
        "dataset_id": dataset_id,
        "path": None,
        "config": {"dataset_id": dataset_id, "purpose": purpose, "rows": rows},
    }


PASSAGE = " ".join(f"w{number}" for number in range(13))
DATA = {
    "training": place("trained", "post-training/messages", "one", f"so {PASSAGE}"),
    "judged": place("judged", "eval/question-answer", "two", "three", f"{PASSAGE} too"),
}


def compared(folder: Path, base: Sequence[float], tuned: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Return what the compare step says of two evaluations with these scores."""
    inputs = {}
    for role, scores in (("baseline", base), ("candidate", tuned)):
        rows = [{"score": score} for score in scores]
        metrics = aggregate(rows, [AggregationFunctionType.ACCURACY])
        (folder / role).mkdir(exist_ok=True)
        scored = {"basic::equality": {"score_rows": rows, "aggregated_results": metrics}}
        (folder / role / "response.json").write_text(json.dumps({"generations": [], "scores": scored}))
        summary = {"benchmark": "b", "rows": len(rows), "scores": {"basic::equality": metrics}}
        inputs[role] = StepResult(name=role, kind="evaluate", key=role, folder=str(folder / role), summary=summary)
    settings = {"seed": seed, "labels": LABELS, "gate": Gate().model_dump(), "num_examples": None}
    step = Step(name="compare", kind="compare", key="k", settings=settings, locations={"data": DATA})
    run = cast(Any, SimpleNamespace(log_metrics=lambda metrics: None))
    return compare.run(StepContext(step, inputs, folder, run, cast(PlanRun, None)))


def test_an_equal_one_passes_and_a_worse_one_fails_in_19_of_20(tmp_path: Path) -> None:
    """Rows that both answer rightly eight times in ten, by chance of their own; then six times in ten."""
    passed, failed = 0, 0
    for seed in SEEDS:
        rng = random.Random(seed)  # noqa: S311 - simulated scores
        base, equal, worse = ([float(rng.random() < p) for _ in range(ROWS)] for p in (0.8, 0.8, 0.6))
        passed += not compared(tmp_path, base, equal, seed)["gate"]["failures"]
        failed += bool(compared(tmp_path, base, worse, seed)["gate"]["failures"])
    assert passed >= 19
    assert failed >= 19


def test_rows_that_repeat_a_passage_of_the_training_data_are_counted_and_named(tmp_path: Path) -> None:
    found = compared(tmp_path, [1.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    assert (found["shared_passages"], found["shared_rows"]) == (1, [3])


def test_with_repeats_each_rows_mean_is_compared(tmp_path: Path) -> None:
    for role, repeats in (
        ("baseline", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        ("candidate", [[1.0, 1.0, 0.0], [1.0, 0.0, None]]),
    ):
        (tmp_path / role).mkdir()
        kept = [{"basic::equality": scores} for scores in repeats]
        (tmp_path / role / "repeats.json").write_text(json.dumps(kept))
    (row,) = compared(tmp_path, [0.0, 0.0, 0.0], [1.0, 1.0, 0.0])["table"]
    assert row["difference"] == pytest.approx(((1.0 - 0.5) + (0.5 - 0.0)) / 2), "the third row could not be scored once"


def aliases(home: Path) -> dict[str, dict[str, int]]:
    """Return the registered models' aliases, as MLflow tells them."""
    program = (
        "import json, mlflow; c = mlflow.MlflowClient(); "
        "print(json.dumps({m.name: dict(m.aliases) for m in c.search_registered_models()}))"
    )
    uri = f"sqlite:///{home}/mlflow/mlflow.db"
    command = [sys.executable, "-W", "ignore", "-c", f"import mlflow; mlflow.set_tracking_uri({uri!r}); {program}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return cast(dict[str, dict[str, int]], json.loads(told.strip().splitlines()[-1]))


def run(overrides: list[str]) -> dict[str, StepResult]:
    plan = compile_plan(load_experiment("quickstart", overrides).experiment)
    done: dict[str, StepResult] = {}
    with open_plan_run(plan, [], lambda: False, Origin("")) as plan_run:
        for step in plan.steps:
            done[step.name], _ = execute(step, plan_run, done)
    return done


def test_one_that_passed_is_the_champion(tmp_path: Path, llsflow_home: Path) -> None:
    words = small_quickstart(tmp_path)
    assert "gate" not in [step.kind for step in compile_plan(load_experiment("quickstart", words).experiment).steps]
    done = run([*words, "benchmark.gate={tolerance: 0.0}"])
    assert done["gate"].summary == {"passed": True, "champion": "quickstart", "version": "1"}
    assert done["compare"].summary["gate"] == {"failures": []}
    assert aliases(llsflow_home) == {"quickstart": {"champion": 1}}
    report = (Path(done["record"].folder) / "report.md").read_text()
    assert "gate" in report


def test_a_gate_that_cannot_judge_is_refused() -> None:
    with pytest.raises(ConfigError, match="has nothing to compare with"):
        load_experiment("eval", ["model.path=x", "benchmark.gate={}"])
    with pytest.raises(ConfigError, match="'basic::nope' is not in the benchmark's scoring_functions"):
        load_experiment("quickstart", ["benchmark.gate={scoring_functions: ['basic::nope']}"])


@pytest.mark.slow
def test_training_that_ruins_a_good_model_fails_and_fails_again_without_work(
    tmp_path: Path, llsflow_home: Path
) -> None:
    good = Path(run(["tracking.register_as=dates", "benchmark.gate={}"])["export"].folder) / "model"
    assert aliases(llsflow_home) == {"dates": {"champion": 1}}
    ruin = [
        "model=folder",
        f"model.path={good}",
        "benchmark.gate={}",
        "tracking.register_as=dates",
        "recipe.training_config.max_steps_per_epoch=10",
        "recipe.training_config.optimizer_config.lr=0.5",
        "recipe.training_config.optimizer_config.num_warmup_steps=0",
    ]
    told = []
    for _ in range(2):
        with pytest.raises(GateError, match=r"the gate is not passed: iso_dates, basic::equality: accuracy") as error:
            run(ruin)
        told.append(str(error.value))
        assert aliases(llsflow_home) == {"dates": {"champion": 1}}
    assert told[0] == told[1]
    plan = compile_plan(load_experiment("quickstart", ruin).experiment)
    assert [step.name for step in plan.steps if step.state != "skip"] == ["gate"]
