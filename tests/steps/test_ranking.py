"""Rerankers as candidates: by words, by weights and behind an endpoint; and what is refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import load_experiment
from llsflow.errors import ConfigError, DataError
from llsflow.models import endpoint as endpoints
from llsflow.models.ranking import RankingModel
from llsflow.plan import compile_plan
from llsflow.schema.plan import StepResult
from llsflow.steps.context import Origin
from llsflow.steps.execute import execute
from llsflow.steps.opening import open_plan_run
from tests.models.rerankers import cross_encoder
from tests.scripted import Answer, scripted
from tests.steps.test_evaluate import Counting

CANDIDATE = "benchmark.benchmark_config.eval_candidate"
NDCG, MRR = "rerank::ndcg", "rerank::mrr"


pytestmark = pytest.mark.usefixtures("one_home")


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT_SECONDS", 0.01)


def evaluate(*overrides: str) -> StepResult:
    plan = compile_plan(load_experiment("rerank", overrides).experiment)
    with open_plan_run(plan, [Counting()], lambda: False, Origin("")) as plan_run:
        return execute(plan.step("evaluate-base"), plan_run, {})[0]


def averages(result: StepResult) -> dict[str, float]:
    return {name: found["average"]["average"] for name, found in result.summary["scores"].items()}


def rankings(result: StepResult) -> list[list[int]]:
    made = json.loads((Path(result.folder) / "response.json").read_text())["generations"]
    return [[one["index"] for one in json.loads(generation["generated_answer"])] for generation in made]


def by_relevance(body: dict[str, Any], _: int) -> Answer:
    """Score by a word of the sentence, so that the order is known."""
    scores = [len(text) for text in body["documents"]]
    results = [{"index": place, "relevance_score": score} for place, score in enumerate(scores)]
    return Answer(body={"results": sorted(results, key=lambda one: -one["relevance_score"])})


def test_by_words_and_cut_where_the_candidate_says() -> None:
    three, one = evaluate(), evaluate(f"{CANDIDATE}.max_num_results=1")
    assert [ranking[:1] for ranking in rankings(three)] == rankings(one)
    assert {len(ranking) for ranking in rankings(three)} == {3}
    assert 0 < averages(one)[MRR] < averages(three)[MRR] < 1


def test_by_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, together = RankingModel.scores, []

    def watched(self: RankingModel, query: str, items: list[str], batch_size: int = 32) -> list[float]:
        together.append(batch_size)
        return whole(self, query, items, batch_size)

    monkeypatch.setattr(RankingModel, "scores", watched)
    folder = cross_encoder(tmp_path / "cross")
    result = evaluate("model=reranker", f"model.path={folder}", "benchmark.batch_size=2")
    assert together == [2] * 6
    assert result.summary["rows"] == 6
    assert 0 <= averages(result)[NDCG] <= 1


def test_behind_an_endpoint_with_failing_rows_told_apart() -> None:
    def say(body: dict[str, Any], number: int) -> Answer:
        if "crash" in body["query"]:
            return Answer(body={"results": [{"index": 0, "relevance_score": 1.0}]})
        return by_relevance(body, number)

    with scripted(say) as script:
        result = evaluate(
            *("model.builtin=null", f"+model.endpoint={{base_url: '{script.url}', model: theirs, at_once: 2}}"),
            "benchmark.benchmark_config.num_examples=4",
        )
    assert script.paths == ["/v1/rerank"] * 4
    first = next(body for body in script.sent if "stop a training" in body["query"])
    assert (first["model"], first["top_n"], len(first["documents"])) == ("theirs", 5, 5)
    assert (result.summary["failed"], result.summary["failed_rows"]) == (1, [2])
    rows = [json.loads(line) for line in (Path(result.folder) / "rows.jsonl").read_text().splitlines()]
    assert "scored 1 of 5 items" in rows[1]["error"]
    assert rows[0]["prompt"] == "How do I stop a training job?"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model=folder", "model.path=x"], "'base' writes text: allowed is 'model'"),
        (["experiment=eval", "model=bm25"], "'bm25' ranks and writes no text: allowed is 'rerank'"),
        (["benchmark.dataset_id=iso_dates_held_out"], "a candidate of type rerank takes purpose eval/rerank"),
        (["+benchmark.response_format={type: json_schema, json_schema: {}}"], "a reranker writes nothing"),
        (["experiment=sft", "model=bm25", "dataset=iso_dates"], "rerankers are evaluated and not trained here"),
        (["model.model_type=llm"], "bm25 ranks and writes no text: set model_type: rerank"),
        (["model=reranker", "model.path=x", "+model.chat_template=x"], "holds no conversation"),
    ],
)
def test_what_contradicts_itself_is_refused(overrides: list[str], sentence: str) -> None:
    chosen, _, name = overrides[0].partition("=")
    name, rest = (name, overrides[1:]) if chosen == "experiment" else ("rerank", overrides)
    with pytest.raises(ConfigError, match=sentence):
        load_experiment(name, rest)


def test_scoring_functions_of_texts_are_for_texts(tmp_path: Path) -> None:
    plan = load_experiment("rerank", ["benchmark.scoring_functions=[basic::equality, rerank::mrr]"]).experiment
    with pytest.raises(DataError, match="'basic::equality' scores a text, and the candidate's answer is an order"):
        compile_plan(plan)
    overrides = ["model=endpoint", "model.endpoint.base_url=http://x/v1", "benchmark.scoring_functions=[rerank::mrr]"]
    texts = load_experiment("eval", overrides)
    with pytest.raises(DataError, match="'rerank::mrr' scores an order of items, and the candidate's answer is a text"):
        compile_plan(texts.experiment)
