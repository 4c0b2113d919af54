"""Plans: which steps, which keys change with what, and the reason each will run. Nothing runs here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llsflow.config import load_experiment
from llsflow.errors import DataError
from llsflow.plan import compile_plan
from llsflow.plan.compile import remember
from llsflow.schema.plan import Plan, StepResult, StepState
from llsflow.steps import results, versions_of

Compile = Callable[..., Plan]


@pytest.fixture
def compiled(small: list[str]) -> Compile:
    def compile_small(*overrides: str, name: str = "quickstart") -> Plan:
        return compile_plan(load_experiment(name, [*small, *overrides]).experiment)

    return compile_small


def changed(before: Plan, after: Plan) -> set[str]:
    keys = {step.name: step.key for step in before.steps}
    return {step.name for step in after.steps if keys.get(step.name) != step.key}


ALL = {"model", "prepare", "train", "export", "evaluate-base", "evaluate-tuned", "compare", "record"}


def test_the_steps_of_the_quickstart_in_order(compiled: Compile) -> None:
    plan = compiled()
    order = [step.name for step in plan.steps]
    assert order == ["model", "prepare", "train", "export", "evaluate-base", "evaluate-tuned", "compare", "record"]
    for step in plan.steps:
        assert all(order.index(source) < order.index(step.name) for source in step.inputs.values())
        assert (step.state, step.reason) == (StepState.RUN, "not run yet")


TUNED = {"train", "export", "evaluate-tuned", "compare", "record"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("recipe.training_config.optimizer_config.lr=1e-3", TUNED),
        ("recipe.lr_schedule=linear", TUNED),
        ("recipe.training_config.data_config.train_on_input=true", TUNED | {"prepare"}),
        ("recipe.max_length=64", TUNED | {"prepare"}),
        ("benchmark.benchmark_config.num_examples=4", {"evaluate-base", "evaluate-tuned", "compare", "record"}),
        ("recipe.training_config.dtype=bf16", TUNED | {"evaluate-base"}),
        ("seed=1", ALL),
        ("description=other", {"record"}),
        ("trainer.num_threads=1", set()),
        ("benchmark.batch_size=2", {"record"}),
        ("recipe.keep_checkpoints=1", {"record"}),
        ("recipe.keep_checkpoints=null", {"record"}),
        ("recipe.checkpoint_dir=mine", {"record"}),
    ],
)
def test_a_change_runs_only_what_depends_on_it(compiled: Compile, override: str, expected: set[str]) -> None:
    assert changed(compiled(), compiled(override)) == expected


def test_the_code_of_a_users_own_scoring_function_is_part_of_the_key(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "own-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llsflow.scorers]\nown::same = llsflow_plan_own:Same\n")
    module = info.parent / "llsflow_plan_own.py"
    module.write_text(
        "from llsflow.scorers import SCORERS\nclass Same(type(SCORERS['basic::equality'])):\n    id = 'own::same'\n"
    )
    monkeypatch.syspath_prepend(str(info.parent))
    own = "benchmark.scoring_functions=['own::same']"
    before = compiled(own)
    module.write_text(module.read_text() + "# another rule\n")
    assert changed(before, compiled(own)) == {"evaluate-base", "evaluate-tuned", "compare", "record"}
    assert "scoring_code" not in compiled().step("evaluate-base").settings
    del sys.modules["llsflow_plan_own"]


def test_the_code_that_makes_questions_decides_answers_too(compiled: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled().step("evaluate-base").settings["generations"]
    monkeypatch.setattr("llsflow.plan.compile.digest_alone", lambda *modules: ",".join(modules))
    assert compiled().step("evaluate-base").settings["generations"] != before


def test_the_code_of_tools_of_other_packages_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llsflow.tools.python_functions import outside_code

    info = tmp_path / "own-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llsflow.tools]\nlookup = llsflow_plan_tool:lookup\nother = x:y\n")
    module = tmp_path / "llsflow_plan_tool.py"
    module.write_text("def lookup() -> str:\n    return 'one'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = outside_code(["lookup", "calculator"])
    assert before.keys() == {"lookup"}
    module.write_text("def lookup() -> str:\n    return 'two'\n")
    assert outside_code(["lookup"]) != before
    assert "llsflow_plan_tool" not in sys.modules


def test_keys_are_of_content_not_of_names(compiled: Compile, tmp_path: Path) -> None:
    before = compiled()
    (tmp_path / "copy.csv").write_bytes((tmp_path / "days.csv").read_bytes())
    assert changed(before, compiled(f"dataset.uri={tmp_path / 'copy.csv'}")) == {"record"}
    with (tmp_path / "days.csv").open("a") as file:
        file.write("1 May 1999,1999-05-01\n")
    assert changed(before, compiled()) == TUNED | {"prepare"}


def test_the_same_experiment_has_the_same_key(compiled: Compile) -> None:
    assert compiled().key == compiled().key


def finish(plan: Plan, *names: str) -> None:
    for name in names:
        step = plan.step(name)
        results.work_folder(step).mkdir(parents=True, exist_ok=True)
        (results.work_folder(step) / "out.txt").write_text(name)
        summary = {"train": {"tokens": 1234}} if name == "prepare" else {}
        results.commit(step, StepResult(name=name, kind=step.kind, key=step.key, folder="", summary=summary))


def test_reasons(compiled: Compile) -> None:
    plan = compiled()
    finish(plan, *ALL)
    remember(plan)
    assert all(step.reason == "up to date" for step in compiled().steps)
    reasons = {step.name: step.reason for step in compiled("recipe.training_config.optimizer_config.lr=1e-3").steps}
    assert reasons["prepare"] == "up to date"
    assert reasons["train"] == "changed: recipe.training_config.optimizer_config.lr 0.003 -> 0.001"
    assert reasons["export"] == "depends on train"
    assert reasons["compare"] == "depends on evaluate-tuned"


def test_a_result_of_other_libraries_stays_and_says_so(compiled: Compile) -> None:
    plan = compiled()
    finish(plan, *ALL)
    file = results.final_folder(plan.step("train")) / results.RESULT
    kept = json.loads(file.read_text("utf-8"))
    here = versions_of("train")
    file.write_text(json.dumps({**kept, "libraries": {**here, "torch": "1.0.0"}}), "utf-8")
    train = compiled().step("train")
    assert (train.state, train.reason) == (StepState.SKIP, f"up to date; made with torch 1.0.0 (here {here['torch']})")
    assert compiled().step("export").reason == "up to date"


def test_output_that_was_damaged_is_made_again(compiled: Compile) -> None:
    plan = compiled()
    finish(plan, *ALL)
    remember(plan)
    (results.final_folder(plan.step("export")) / "out.txt").write_text("cut")
    state = {step.name: (step.state, step.reason) for step in compiled().steps}
    assert state["export"] == (StepState.RUN, "its output is not there")
    assert state["train"][0] is StepState.SKIP


def test_a_folder_under_another_steps_name_is_no_result(compiled: Compile) -> None:
    plan = compiled()
    finish(plan, "train")
    other = compiled("seed=7").step("train")
    results.final_folder(plan.step("train")).rename(results.final_folder(other))
    assert results.finished(other) is None


def test_held_out_rows_and_the_others_are_different_data(compiled: Compile) -> None:
    data = "recipe.training_config.data_config.dataset_id"
    share = "dataset.hold_out=0.5"
    one, other = compiled(share), compiled(share, f"{data}=iso_dates:held_out")
    assert "prepare" in changed(one, other)


def test_checkpoints_cost_their_weights_and_the_newest_two_their_optimizer(compiled: Compile) -> None:
    size = 4 * (compiled().step("train").estimate.parameters or 0)
    for override, copies in (("1", 1 + 2), ("2", 2 + 4), ("null", 3 + 4), ("9", 3 + 4)):
        assert compiled(f"recipe.keep_checkpoints={override}").step("train").estimate.disk_bytes == copies * size


def test_estimates(compiled: Compile) -> None:
    plan = compiled()
    prepare, train = plan.step("prepare").estimate, plan.step("train").estimate
    assert (prepare.rows, train.rows, train.optimizer_steps) == (40, 24, 6)
    # 261 · 32 embeddings, twice (not tied); 3 layers of 4 · 32² attention, 3 · 32 · 48 MLP, 2 · 32 norms; a last norm
    assert train.parameters == 2 * 261 * 32 + 3 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    finish(plan, "prepare")
    assert compiled().step("prepare").estimate.tokens == 1234


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs", "most", "steps"),
    [(40, 4, 1, 1, 0, 10), (40, 4, 3, 1, 0, 4), (40, 7, 1, 2, 0, 12), (40, 4, 1, 3, 2, 6)],
)
def test_optimizer_steps_are_those_of_the_training(
    compiled: Compile, rows: int, batch: int, accumulation: int, epochs: int, most: int, steps: int
) -> None:
    import numpy as np

    from llsflow.training.fit import step_plan

    training = "recipe.training_config"
    plan = compiled(
        f"{training}.data_config.batch_size={batch}",
        f"{training}.gradient_accumulation_steps={accumulation}",
        f"{training}.n_epochs={epochs}",
        f"{training}.max_steps_per_epoch={most}",
    )
    assert plan.step("train").estimate.optimizer_steps == steps
    recipe = plan.experiment.recipe
    assert recipe is not None
    assert len(step_plan(np.ones(rows, dtype=np.int64), recipe, 0).steps) == steps


def test_everything_wrong_on_this_machine_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "no_model").mkdir()
    experiment = load_experiment(
        "sft", [f"dataset.uri={tmp_path}/empty.jsonl", f"model.path={tmp_path}/no_model", "benchmark=held_out"]
    ).experiment
    with pytest.raises(DataError) as caught:
        compile_plan(experiment)
    told = str(caught.value)
    assert "empty.jsonl: holds no rows" in told
    assert "config.json" in told


def test_a_context_over_the_models_is_refused(compiled: Compile) -> None:
    with pytest.raises(DataError, match=r"recipe.max_length: 4096 tokens are over the model's context: allowed .* 256"):
        compiled("recipe.max_length=4096")
    with pytest.raises(DataError, match="max_tokens: 300 leaves no room for a prompt: the model's context is 256"):
        compiled("benchmark.benchmark_config.eval_candidate.sampling_params.max_tokens=300")


def test_benchmark_rows_that_are_trained_on_are_refused(compiled: Compile, tmp_path: Path) -> None:
    import csv

    from llsflow.config import packaged_conf

    with (packaged_conf() / "dataset" / "iso_dates" / "held_out.csv").open() as file:
        asked = list(csv.DictReader(file))[:3]
    with (tmp_path / "days.csv").open("a") as file:
        file.writelines(f'"{row["question"]}",{row["answer"]}\n' for row in asked)
    with pytest.raises(DataError, match=r"3 of the 200 rows of 'iso_dates_held_out' are also training rows of"):
        compiled()
    assert compiled("recipe.allow_overlap=true").step("train").state is StepState.RUN


def test_a_model_folder_is_known_by_its_content(compiled: Compile, tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "copy")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"p{i}", "completion": "c"}) + "\n" for i in range(30)))

    def plan(folder: Path) -> Plan:
        return compile_plan(load_experiment("sft", [f"dataset.uri={rows}", f"model.path={folder}"]).experiment)

    assert changed(plan(tiny_folder), plan(tmp_path / "copy")) == {"record"}
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert changed(plan(tiny_folder), plan(tmp_path / "copy")) == {"train", "export", "record"}
    tokenizer = tmp_path / "copy" / "chat_template.jinja"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert "prepare" in changed(plan(tiny_folder), plan(tmp_path / "copy"))


def test_an_explicit_null_is_not_the_default(compiled: Compile) -> None:
    training = "recipe.training_config"
    plan = compiled("recipe.gradient_clip_norm=null", f"{training}.max_validation_steps=null", f"{training}.dtype=null")
    recipe = plan.experiment.recipe
    assert recipe is not None
    assert recipe.gradient_clip_norm is None
    assert recipe.training_config.max_validation_steps is None
    assert plan.step("train").settings["recipe"]["training_config"]["dtype"] is None


def test_a_compiled_experiment_is_the_same_but_for_absolute_paths(small: list[str]) -> None:
    experiment = load_experiment("quickstart", small).experiment
    assert compile_plan(experiment).experiment == experiment


def test_scoring_functions_that_are_not_there_are_refused(compiled: Compile) -> None:
    with pytest.raises(DataError, match=r"benchmark.scoring_functions.0: 'basic::equal' is no scoring function: did"):
        compiled("benchmark.scoring_functions=[basic::equal]")
