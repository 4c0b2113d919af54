"""An evaluation that is killed goes on at its missing rows, and nobody can tell from its result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llsflow.config import load_experiment
from llsflow.errors import DataError
from llsflow.models.generation import Generation
from llsflow.plan import compile_plan
from llsflow.schema.plan import Step, StepResult, StepState
from llsflow.steps import generations, results
from llsflow.steps.checkpoints import CheckpointFacts
from llsflow.steps.context import Origin, Progress
from llsflow.steps.execute import execute
from llsflow.steps.opening import open_plan_run

ROWS = 8


class Counting:
    """A watcher that remembers the progress, and holds the run once `hold_at` rows are done."""

    def __init__(self, hold_at: int | None = None) -> None:
        self.hold_at = hold_at
        self.seen: list[int] = []

    def step_started(self, step: Step) -> None:
        """Nothing to remember."""

    def step_skipped(self, step: Step, result: StepResult) -> None:
        """Nothing to remember."""

    def checkpoint(self, step: Step, checkpoint: CheckpointFacts) -> None:
        """Nothing to remember."""

    def step_finished(self, step: Step, result: StepResult) -> None:
        """Nothing to remember."""

    def progress(self, step: Step, progress: Progress) -> None:
        self.seen.append(progress.done)
        if progress.done == self.hold_at:
            sys.stdout.write("held\n")
            sys.stdout.flush()
            sys.stdin.read()


def evaluate(overrides: list[str], watcher: Counting, config_dir: Path | None = None) -> StepResult:
    plan = compile_plan(load_experiment("eval", overrides, config_dir=config_dir).experiment)
    with open_plan_run(plan, [watcher], lambda: False, Origin("")) as plan_run:
        return execute(plan.step("evaluate-base"), plan_run, {})[0]


@pytest.fixture
def overrides(tiny_folder: Path, tmp_path: Path) -> list[str]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": f"{n} " * n, "answer": "x"}) + "\n" for n in range(1, ROWS + 1)))
    candidate = "benchmark.benchmark_config.eval_candidate"
    return [
        f"model.path={tiny_folder}",
        f"+datasets.own={{dataset_id: own, purpose: eval/question-answer, uri: '{data}'}}",
        "benchmark.dataset_id=own",
        f"{candidate}.sampling_params={{strategy: {{type: top_p, temperature: 1.2}}, max_tokens: 12}}",
        "benchmark.batch_size=1",
        "trainer=cpu",
    ]


def test_killed_with_9_it_goes_on_at_its_missing_rows(overrides: list[str], llsflow_home: Path) -> None:
    command = [sys.executable, __file__, *overrides]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    step = compile_plan(load_experiment("eval", overrides).experiment).step("evaluate-base")
    assert (step.state, step.reason) == (
        StepState.RESUME,
        "takes the answers that are there",
    )
    file = results.generations_folder(step) / results.GENERATIONS
    kept = file.read_bytes()
    assert len(kept.splitlines()) == 3
    file.write_bytes(kept + b'{"index": 5, "text": "a line that was cut o')

    watcher = Counting()
    resumed = evaluate(overrides, watcher)
    assert watcher.seen == [3, 4, 5, 6, 7, 8]
    lines = (Path(resumed.folder) / results.GENERATIONS).read_bytes()
    assert lines.startswith(kept), "rows that were done were made again"
    assert sorted(json.loads(line)["index"] for line in lines.splitlines()) == list(range(ROWS))

    aside = llsflow_home / "resumed"
    Path(resumed.folder).rename(aside)
    shutil.rmtree(file.parent)
    watcher = Counting()
    unbroken = evaluate(overrides, watcher)
    assert watcher.seen == list(range(ROWS + 1))
    assert unbroken.summary == resumed.summary
    for name in ("response.json", "rows.jsonl"):
        assert (Path(unbroken.folder) / name).read_bytes() == (aside / name).read_bytes()


def test_rows_without_an_answer_are_evaluated_by_their_own_columns(overrides: list[str], tmp_path: Path) -> None:
    asked = {"prompt": "a?", "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"]}
    data = tmp_path / "instructions.jsonl"
    data.write_text("".join(json.dumps({**asked, "key": n, "kwargs": [{}, {}]}) + "\n" for n in range(3)))
    purpose = "purpose: eval/question-answer"
    own = [
        *overrides,
        f"+datasets.instructions={{dataset_id: instructions, {purpose}, uri: '{data}'}}",
        "benchmark.dataset_id=instructions",
        "benchmark.scoring_functions=['basic::ifeval']",
    ]
    folder = Path(evaluate(own, Counting()).folder)
    scores = json.loads((folder / "response.json").read_text())["scores"]["basic::ifeval"]
    assert len(scores["score_rows"]) == 3
    assert all(row["weight"] == 2.0 for row in scores["score_rows"])
    assert all("detectable_format:title" in row["not_followed"] for row in scores["score_rows"])
    assert scores["aggregated_results"]["weighted_average"]["num_unscored"] == 0
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [line["expected"] for line in lines] == [None] * 3

    with data.open("a") as file:
        file.write(json.dumps({"prompt": "b?", "kwargs": [{}]}) + "\n")
    with pytest.raises(DataError) as told:
        compile_plan(load_experiment("eval", own).experiment)
    (mistake,) = told.value.mistakes
    assert mistake.where == f"{data}:4"
    assert mistake.message.endswith("basic::ifeval needs instruction_id_list: absent or null here")
    first = [*own, "benchmark.benchmark_config.num_examples=3"]
    assert compile_plan(load_experiment("eval", first).experiment), "the row is not among those that are evaluated"
    with pytest.raises(DataError, match="basic::equality needs an expected answer"):
        compile_plan(load_experiment("eval", [*first, "benchmark.scoring_functions=['basic::equality']"]).experiment)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    made = {n: Generation(f"té\u2028xt {n}\n", n + 1, "stop", f"<|user|>{n}") for n in range(4)}
    with generations.keeping(tmp_path) as (found, keeper):
        assert found == {}
        for index in (2, 0):
            keeper.add(index, made[index])
    for damage in (b"", b"{", b'{"index": 1}\n', b"null\n", b"\xff\n", b'{"text": "x"}\n{"index": 3}'):
        with (tmp_path / results.GENERATIONS).open("ab") as file:
            file.write(damage)
        with generations.keeping(tmp_path) as (found, keeper):
            assert found == {0: made[0], 2: made[2]}
    with generations.keeping(tmp_path) as (found, keeper):
        keeper.add(3, made[3])
    with generations.keeping(tmp_path) as (found, keeper):
        assert found == {0: made[0], 2: made[2], 3: made[3]}


if __name__ == "__main__":
    evaluate(sys.argv[1:], Counting(hold_at=3))
