"""The steps of a small quickstart, run one after another with a real MLflow store and without Prefect."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import Loaded, load_experiment, to_yaml
from llsflow.errors import ConfigError, DataError, LlsflowError, Stopped
from llsflow.plan import compile_plan
from llsflow.schema.plan import Plan, Step, StepResult
from llsflow.schema.scoring import EvaluateResponse
from llsflow.steps import STEPS, code_version, results
from llsflow.steps.checkpoints import CheckpointFacts, list_checkpoints
from llsflow.steps.context import Origin, Progress
from llsflow.steps.execute import execute
from llsflow.steps.opening import open_plan_run
from tests.conftest import small_quickstart


class Log:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.progressed: dict[str, Progress] = {}
        self.checkpoints: list[CheckpointFacts] = []

    def step_started(self, step: Step) -> None:
        self.events.append(("started", step.name))

    def step_skipped(self, step: Step, result: StepResult) -> None:
        self.events.append(("skipped", step.name))

    def progress(self, step: Step, progress: Progress) -> None:
        self.progressed[step.name] = progress

    def checkpoint(self, step: Step, checkpoint: CheckpointFacts) -> None:
        self.checkpoints.append(checkpoint)

    def step_finished(self, step: Step, result: StepResult) -> None:
        self.events.append(("finished", step.name))


def run(loaded: Loaded, log: Log, stop_in: str | None = None) -> tuple[Plan, dict[str, StepResult]]:
    plan = compile_plan(loaded.experiment)
    done: dict[str, StepResult] = {}

    def stopping() -> bool:
        return stop_in is not None and log.progressed.get(stop_in) is not None

    origin = Origin(to_yaml(loaded), loaded.overrides, "llsflow run quickstart")
    with open_plan_run(plan, [log], stopping, origin) as plan_run:
        for step in plan.steps:
            done[step.name], _ = execute(step, plan_run, done)
    return plan, done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def shared_home(home: Path, monkeypatch: pytest.MonkeyPatch, llsflow_home: Path) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(home))


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [
        *small_quickstart(tmp_path_factory.mktemp("data")),
        "dataset.hold_out=0.1",
        "recipe.training_config.data_config.validation_dataset_id=iso_dates:held_out",
    ]


@pytest.fixture(scope="module")
def ran(home: Path, overrides: list[str]) -> Iterator[tuple[Plan, dict[str, StepResult], Log]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLSFLOW_HOME", str(home))
        log = Log()
        plan, done = run(load_experiment("quickstart", overrides), log)
        yield plan, done, log


def test_every_step_starts_and_finishes_in_order(ran: tuple[Plan, dict[str, StepResult], Log]) -> None:
    plan, _, log = ran
    assert log.events == [(event, step.name) for step in plan.steps for event in ("started", "finished")]
    train = log.progressed["train"]
    assert (train.done, train.total, train.unit) == (6, 6, "steps")
    assert set(train.metrics) == {"loss", "lr", "tokens/s"}


def test_checkpoints_are_told_and_listed_afterwards(ran: tuple[Plan, dict[str, StepResult], Log]) -> None:
    _, done, log = ran
    folder = Path(done["train"].folder)
    assert [checkpoint.step for checkpoint in log.checkpoints] == [2, 4, 6]
    assert list_checkpoints(folder) == log.checkpoints[-2:], "keep_checkpoints is 2"
    last = log.checkpoints[-1]
    assert (folder / last.path / "model.safetensors").is_file()
    assert (last.epoch, last.metrics["epoch"]) == (0, 0)
    assert last.metrics["train_loss"] == done["train"].summary["train_loss"]
    assert last.metrics["validation_loss"] == done["train"].summary["validation_loss"]
    assert log.checkpoints[0].metrics["validation_loss"] is None


def test_the_export_is_a_plain_hugging_face_folder(ran: tuple[Plan, dict[str, StepResult], Log]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(ran[1]["export"].folder) / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|user|>x<|end|><|assistant|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "tokenizer.json", "generation_config.json"}


def test_the_evaluation_has_the_specs_shape(ran: tuple[Plan, dict[str, StepResult], Log]) -> None:
    text = (Path(ran[1]["evaluate-tuned"].folder) / "response.json").read_text()
    response = EvaluateResponse.model_validate_json(text)
    assert len(response.generations) == 5
    assert all(set(row) >= {"generated_answer"} for row in response.generations)
    scores = response.scores["basic::equality"]
    assert len(scores.score_rows) == 5
    accuracy = scores.aggregated_results["accuracy"]
    assert accuracy["num_total"] == 5
    assert accuracy["accuracy"] == sum(row["score"] for row in scores.score_rows) / 5
    low, high = accuracy["confidence_interval_95"]
    assert 0 <= low <= accuracy["accuracy"] <= high <= 1


def test_nothing_is_left_half_done(ran: tuple[Plan, dict[str, StepResult], Log], home: Path) -> None:
    assert not list((home / "work").iterdir())
    assert not [path for path in home.rglob(".*") if path.is_file() and path.suffix != ".lock"]


def test_a_copy_of_the_model_where_the_recipe_says(
    ran: tuple[Plan, dict[str, StepResult], Log], overrides: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "mine" / "dates"
    log = Log()
    _, done = run(load_experiment("quickstart", [*overrides, f"recipe.checkpoint_dir={copy}"]), log)
    assert ("started", "record") in log.events
    assert ("skipped", "train") in log.events
    exported = Path(done["export"].folder) / "model"
    assert {path.name for path in copy.iterdir()} == {path.name for path in exported.iterdir()} | {".llsflow.json"}
    for path in exported.iterdir():
        assert (copy / path.name).read_bytes() == path.read_bytes()
    assert done["record"].summary["checkpoint_dir"] == str(copy)
    taken = [*overrides, "seed=9", f"recipe.checkpoint_dir={copy}"]
    with pytest.raises(ConfigError, match=r"recipe\.checkpoint_dir: .* holds the model of another training"):
        compile_plan(load_experiment("quickstart", taken).experiment)


def test_a_second_run_does_no_step(ran: tuple[Plan, dict[str, StepResult], Log], overrides: list[str]) -> None:
    log = Log()
    plan, done = run(load_experiment("quickstart", overrides), log)
    assert log.events == [("skipped", step.name) for step in plan.steps]
    assert {name: result.summary for name, result in done.items()} == {
        name: result.summary for name, result in ran[1].items()
    }


def test_stopped_and_run_again_equals_unbroken(
    ran: tuple[Plan, dict[str, StepResult], Log], overrides: list[str], home: Path
) -> None:
    changed = load_experiment("quickstart", [*overrides, "seed=3"])
    with pytest.raises(Stopped, match="stopped after optimizer step 1 of 6"):
        run(changed, Log(), stop_in="train")
    assert compile_plan(changed.experiment).step("train").reason == "goes on from its last checkpoint"
    _, done = run(changed, Log())
    assert done["train"].summary["resumed_from"] == 1
    assert done["train"].summary["steps"] == 6
    lines = (Path(done["train"].folder) / "curves.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert sorted(set(steps)) == [0, 1, 2, 3, 4, 5, 6]


def parent_run(store: sqlite3.Connection, plan: Plan) -> str:
    """Return the plan's first run."""
    query = "select run_uuid from tags join runs using (run_uuid) where key = 'llsflow.plan' and value = ?"
    return str(store.execute(f"{query} order by start_time", (plan.key,)).fetchone()[0])


def test_the_record_in_mlflow(ran: tuple[Plan, dict[str, StepResult], Log], home: Path) -> None:
    """Read with SQL, so that what we wrote is judged by what is there."""
    plan, done, _ = ran
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as store:
        runs = dict(store.execute("select run_uuid, name from runs").fetchall())
        parent = parent_run(store, plan)
        children = store.execute(
            "select run_uuid from tags where key = 'mlflow.parentRunId' and value = ?", (parent,)
        ).fetchall()
        metrics = {row[0] for row in store.execute("select distinct key from metrics where run_uuid = ?", (parent,))}
        params = dict(store.execute("select key, value from params where run_uuid = ?", (parent,)).fetchall())
        status = {row[0] for row in store.execute("select status from runs where run_uuid = ?", (parent,))}
        points = store.execute(
            "select step from metrics where run_uuid = ? and key = 'train/loss' order by step", (done["train"].run_id,)
        ).fetchall()
    assert {runs[child] for (child,) in children} == {step.name for step in plan.steps}
    assert status == {"FINISHED"}
    assert {"train/loss", "train/lr", "train/grad_norm", "train/tokens_per_s", "val/loss"} <= metrics
    assert {"eval/iso_dates/accuracy", "eval/iso_dates/base/accuracy", "eval/iso_dates/difference"} <= metrics
    assert [step for (step,) in points] == [1, 2, 3, 4, 5, 6]
    assert 15 <= len(params) <= 50
    assert float(params["lr"]) == 3e-3
    artifacts = {path.name for path in (home / "mlflow" / "artifacts").rglob("*") if parent in path.parts}
    provenance = json.loads((home / f"mlflow/artifacts/{parent}/artifacts/config/provenance.json").read_text())
    assert set(provenance["data_sha256"]) == {"iso_dates", "iso_dates:held_out", "iso_dates_held_out"}
    assert provenance["seed"] == 0
    assert {"report.html", "report.md", "rows.json", "resolved.yaml", "overrides.txt", "provenance.json"} <= artifacts


def test_the_stored_configuration_gives_the_same_plan(
    ran: tuple[Plan, dict[str, StepResult], Log], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = ran[0]
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as store:
        parent = parent_run(store, plan)
    stored = home / "mlflow" / "artifacts" / parent / "artifacts" / "config" / "resolved.yaml"
    monkeypatch.chdir(tmp_path)
    again = compile_plan(load_experiment(None, [], config_file=stored).experiment)
    assert [step.key for step in again.steps if step.kind != "record"] == [
        step.key for step in plan.steps if step.kind != "record"
    ]


def test_the_report_says_what_came_of_it(ran: tuple[Plan, dict[str, StepResult], Log]) -> None:
    page = (Path(ran[1]["record"].folder) / "report.html").read_text()
    for text in ("llsflow run quickstart", "iso_dates", "&lt;|user|&gt;", "basic::equality", "1,0"[:1]):
        assert text in page


def test_a_failing_step_keeps_its_sentence_and_leaves_no_result(
    overrides: list[str], home: Path, tmp_path: Path
) -> None:
    loaded = load_experiment("quickstart", [*overrides, "recipe.max_length=8"])
    with pytest.raises(DataError, match="tokens: allowed are 8"):
        run(loaded, Log())
    assert results.finished(compile_plan(loaded.experiment).step("prepare")) is None
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as store:
        failed = store.execute("select name from runs where status = 'FAILED'").fetchall()
    assert {"quickstart", "prepare"} <= {name for (name,) in failed}


@pytest.mark.parametrize("kind", STEPS)
def test_every_kind_has_a_function_and_a_code_version(kind: str) -> None:
    assert STEPS[kind].function().__doc__
    assert len(code_version(kind)) == 64


def test_own_rows_on_an_own_model(tiny_folder: Path, tmp_path: Path) -> None:
    """Conversations with a system turn, every answer learned, in bf16, judged on rows held out."""
    rows = []
    for number in range(40):
        first = [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": f"it is {number}"}]
        then = [{"role": "user", "content": "again"}, {"role": "assistant", "content": f"still {number}"}]
        rows.append({"messages": [{"role": "system", "content": "Be brief."}, *first, *then]})
    data = tmp_path / "talks.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = "recipe.training_config"
    loaded = load_experiment(
        "sft",
        [
            f"dataset.uri={data}",
            f"model.path={tiny_folder}",
            "dataset.hold_out=0.2",
            f"{training}.data_config.data_format=dialog",
            f"{training}.n_epochs=1",
            f"{training}.gradient_accumulation_steps=2",
            "benchmark=held_out",
            "benchmark.benchmark_config.eval_candidate.sampling_params.max_tokens=8",
            "trainer=cpu",
        ],
    )
    _, done = run(loaded, Log())
    prepared = done["prepare"].summary
    assert (prepared["train"]["rows"], prepared["validation"]["rows"]) == (32, 8)
    # "it is N" and "still N" and two end marks are 16 tokens where N has one digit, 18 where it has two
    assert sum(prepared[part]["loss_tokens"] for part in prepared) == 10 * 16 + 30 * 18
    assert done["train"].summary["steps"] == 2
    assert done["train"].summary["validation_loss"] > 0
    assert done["export"].summary["dtype"] == "bf16"
    assert done["evaluate-tuned"].summary["rows"] == 8
    again = compile_plan(loaded.experiment)
    assert {step.reason for step in again.steps} == {"up to date"}


def test_the_record_of_a_killed_run_is_ended_by_the_next(
    ran: tuple[Plan, dict[str, StepResult], Log], overrides: list[str], home: Path
) -> None:
    """What kill -9 leaves: a record that says RUNNING, a memo of it, and no process that holds its lock."""
    from llsflow.tracking import Tracking

    tracking = Tracking(ran[0].experiment.tracking)
    tracking.connect()
    dead = tracking.open_run("dead")
    child = tracking.open_run("dead child", parent_id=dead.id)
    (home / "runs" / "0123456789abcdef.json").write_text(json.dumps(dead.id))
    run(load_experiment("quickstart", overrides), Log())
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as store:
        status = dict(store.execute("select run_uuid, status from runs").fetchall())
    assert (status[dead.id], status[child.id]) == ("KILLED", "KILLED")


def test_errors_are_of_the_tree() -> None:
    assert issubclass(Stopped, LlsflowError)


def test_unknown_fields_of_a_stored_result_do_not_matter(
    ran: tuple[Plan, dict[str, StepResult], Log],
) -> None:
    """A newer version may have written more."""
    step = ran[0].step("compare")
    path = results.final_folder(step) / results.RESULT
    stored: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "later": 1}))
    assert results.finished(step) is not None
