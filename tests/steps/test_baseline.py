"""Two models on the same rows: a named one, a folder or the champion as the baseline, with and without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from llsflow.config import load_experiment
from llsflow.errors import ConfigError, DataError, GateError
from llsflow.plan import compile_plan
from llsflow.schema.plan import Plan, StepResult, StepState
from llsflow.steps.context import Origin
from llsflow.steps.execute import execute
from llsflow.steps.opening import open_plan_run
from tests.conftest import small_quickstart
from tests.models.rerankers import cross_encoder
from tests.scripted import Answer, scripted

CANDIDATE = "benchmark.benchmark_config.eval_candidate"
FEW = "benchmark.benchmark_config.num_examples=5"


def compiled(name: str, words: Sequence[str]) -> Plan:
    return compile_plan(load_experiment(name, list(words)).experiment)


def states(plan: Plan) -> dict[str, StepState]:
    return {step.name: step.state for step in plan.steps}


def run(name: str, words: Sequence[str]) -> dict[str, StepResult]:
    plan = compiled(name, words)
    done: dict[str, StepResult] = {}
    with open_plan_run(plan, [], lambda: False, Origin("")) as plan_run:
        for step in plan.steps:
            done[step.name], _ = execute(step, plan_run, done)
    return done


def report(done: dict[str, StepResult]) -> str:
    return (Path(done["record"].folder) / "report.md").read_text()


@pytest.mark.usefixtures("llsflow_home")
def test_two_rerankers_are_compared_and_what_was_evaluated_before_is_not_evaluated_again(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "reranker")
    own = ["model=reranker", f"model.path={folder}"]
    alone = {name: run("rerank", words)["evaluate-base"] for name, words in (("bm25", []), ("folder", own))}
    plan = compiled("rerank", [*own, "benchmark.baseline=bm25"])
    assert states(plan) == {
        "evaluate-baseline": StepState.SKIP,
        "evaluate-candidate": StepState.SKIP,
        "compare": StepState.RUN,
        "record": StepState.RUN,
    }
    done = run("rerank", [*own, "benchmark.baseline=bm25"])
    assert done["evaluate-baseline"].key == alone["bm25"].key
    assert done["evaluate-candidate"].key == alone["folder"].key
    first = done["compare"].summary["table"][0]
    scores = {name: result.summary["scores"][first["scorer"]]["average"]["average"] for name, result in alone.items()}
    assert (first["baseline"], first["candidate"]) == (scores["bm25"], scores["folder"])
    assert first["difference"] == pytest.approx(scores["folder"] - scores["bm25"])
    assert "baseline answer" in report(done)
    assert "candidate answer" in report(done)


@pytest.mark.usefixtures("llsflow_home")
def test_a_gate_without_training_fails_the_worse_of_two_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "conf" / "model"
    models.mkdir(parents=True)
    rows = ", ".join(f"{{input_query: q{number}, expected_answer: 'yes'}}" for number in range(20))
    data = f"dataset={{dataset_id: asked, purpose: eval/question-answer, rows: [{rows}]}}"
    with scripted(lambda body, _: Answer(str(body["model"]))) as server:
        for name in ("yes", "no"):
            (models / f"{name}.yaml").write_text(
                f"model_id: '{name}'\nendpoint:\n  base_url: {server.url}\n  model: '{name}'\n"
            )
        words = ["benchmark.gate={}", f"+{data}", "benchmark.dataset_id=asked"]
        done = run("eval", ["model=yes", "benchmark.baseline='no'", *words])
        assert done["gate"].summary == {"passed": True}
        assert "1.000 (candidate)" in report(done)
        with pytest.raises(GateError, match=r"accuracy 1 \(baseline\) and 0 \(candidate\), a difference of -1"):
            run("eval", ["model=no", "benchmark.baseline='yes'", *words])
        assert len(server.sent) == 40, "each model answers the 20 rows once, whichever part it has"


def test_the_champion_is_the_baseline_of_the_next_training(tmp_path: Path, llsflow_home: Path) -> None:
    words = [*small_quickstart(tmp_path), "benchmark.gate={tolerance: 1.0}", "benchmark.baseline=champion"]
    assert "evaluate-base" in states(compiled("quickstart", words)), "none yet: the model that training begins with"
    first = run("quickstart", words)
    assert first["gate"].summary["version"] == "1"
    again = states(compiled("quickstart", words))
    assert {name for name, state in again.items() if state is StepState.RUN} == {"compare", "record", "gate"}, (
        "it is the champion itself by now, and is not evaluated twice"
    )
    other = [*words, "seed=1"]
    plan = compiled("quickstart", other)
    folder = str(Path(first["export"].folder) / "model")
    assert plan.step("evaluate-baseline").locations["model"] == folder
    second = run("quickstart", other)
    assert second["gate"].summary["version"] == "2"
    third = compiled("eval", [f"model.path={folder}", "benchmark.baseline=champion", "tracking.register_as=quickstart"])
    assert third.step("evaluate-baseline").locations["model"] == str(Path(second["export"].folder) / "model")


@pytest.mark.usefixtures("llsflow_home")
def test_a_folder_is_a_baseline(tiny_folder: Path) -> None:
    plan = compiled("eval", [f"model.path={tiny_folder}", f"benchmark.baseline={tiny_folder}"])
    assert plan.step("evaluate-baseline").key == plan.step("evaluate-candidate").key


@pytest.mark.usefixtures("llsflow_home")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["benchmark.baseline=nope"], r"no model 'nope'.*a folder is written as \./nope"),
        (["benchmark.baseline=./nowhere"], r"benchmark\.baseline: .*nowhere"),
        (["benchmark.baseline=base"], "is the model that it would be compared with"),
        (["benchmark.baseline=bm25"], "'bm25' has model_type rerank: it must be llm as well"),
        (["benchmark.baseline=tiny_llama"], "has init: there is nothing to compare with before it is trained"),
        (["benchmark.baseline=champion"], "no version of 'eval' has the alias 'champion' in MLflow yet: train with a"),
    ],
)
def test_a_baseline_that_is_not_there_is_told_before_anything_starts(
    tiny_folder: Path, words: list[str], told: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=told):
        compiled("eval", [f"model.path={tiny_folder}", *words])
