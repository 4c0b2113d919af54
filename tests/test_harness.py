"""The same accuracy as EleutherAI's harness gives the same model on the same prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"
ROWS = 40


def fixture(folder: Path) -> None:
    """Write a model, and questions whose answers are the model's own for every second row."""
    from llsflow.schema.sampling import SamplingParams
    from tests.models.small import make, questions

    model = make(seed=3)
    asked = [row for row in questions(3 * ROWS) if str(row[0]["content"]).strip()][:ROWS]
    made = model.generate(asked, SamplingParams(max_tokens=16), batch_size=8)
    model.model.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    rows = [
        {"question": str(row[0]["content"]), "answer": one.text if number % 2 else "something else"}
        for number, (row, one) in enumerate(zip(asked, made, strict=True))
        # the harness takes blanks at the ends off, and no empty answer
    ]
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def ours(folder: Path) -> float:
    """Return the accuracy that `llsflow run eval` finds."""
    words = [
        *("run", "eval", f"model.path={folder / 'model'}", "trainer=cpu", "benchmark.dataset_id=own"),
        f"+datasets.own={{dataset_id: own, purpose: eval/question-answer, uri: '{folder / 'qa.jsonl'}'}}",
        "benchmark.benchmark_config.eval_candidate.sampling_params.max_tokens=16",
    ]
    program = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]
    environment = {**os.environ, "LLSFLOW_HOME": str(folder / "home")}
    try:
        done = subprocess.run([*program, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (found,) = (folder / "home" / "steps").glob("evaluate-*/result.json")
        return float(json.loads(found.read_text())["summary"]["scores"]["basic::equality"]["accuracy"]["accuracy"])
    finally:
        subprocess.run([*program, "stop"], env=environment, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_harness_counts_the_same_answers_as_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import run

    run.ensure_peers()
    fixture(tmp_path)
    command = [str(run.PEERS), str(BENCH / "generate.py"), str(tmp_path), "lm-eval"]
    options = ["--rows", str(ROWS), "--max-tokens", "16", "--threads", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.strip().splitlines()[-1])["accuracy"]
    assert theirs == ours(tmp_path) == 0.5
