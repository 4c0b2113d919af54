"""Rows of other columns than an answer: registered, evaluated while the caller waits, and as a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llsflow.data.registration import register
from llsflow.errors import MistakesError
from llsflow.jobs import requests
from llsflow.jobs.compiling import Compiled, compile_job
from llsflow.jobs.names import CatalogueNames
from llsflow.jobs.rows import evaluate_rows
from llsflow.schema.benchmarks import BenchmarkConfig, EvaluateRowsRequest
from llsflow.schema.datasets import RegisterDatasetRequest
from llsflow.store import Store
from tests.http_server import Handler, serve
from tests.jobs.test_requests import SERVER
from tests.scripted import Answer, scripted

CONFIG = {"eval_candidate": {"type": "model", "model": "tiny-llama", "sampling_params": {"max_tokens": 4}}}
ROWS: list[dict[str, Any]] = [
    {
        "prompt": "Two cities, no commas.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{"keywords": None}, {"keywords": ["Rome"]}],
    },
    {"prompt": "Anything in capitals.", "instruction_id_list": ["change_case:english_capital"], "kwargs": [{}]},
]


class Scripted(Handler):
    """Answers "Rome, Oslo" to everything, and remembers what was asked."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body["messages"][-1]["content"] if "messages" in body else body["input"][0])
        said: Any = {"choices": [{"message": {"role": "assistant", "content": "Rome, Oslo"}}]}
        if "input" in body:
            said = {"data": [{"index": 0, "embedding": [1.0, float(len(body["input"][0]))]}]}
        answer = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[str]]]:
    """The address of a scripted endpoint, and the questions that it was asked."""
    asked: list[str] = []
    with serve(type("Handler", (Scripted,), {"asked": asked})) as port:
        yield f"http://127.0.0.1:{port}", asked


@pytest.fixture
def names(store: Store) -> CatalogueNames:
    """The catalogue with the rows registered."""
    body = {
        "dataset_id": "instructions",
        "purpose": "eval/question-answer",
        "source": {"type": "rows", "rows": [{"key": n, **row} for n, row in enumerate(ROWS)]},
    }
    register(store, RegisterDatasetRequest.model_validate(body), SERVER)
    return CatalogueNames(store)


def test_rows_without_an_answer_are_evaluated_while_the_caller_waits(
    names: CatalogueNames, endpoint: tuple[str, list[str]]
) -> None:
    url, asked = endpoint
    rows = [*ROWS, {"prompt": "What is missing?", "kwargs": [{}]}]
    request = EvaluateRowsRequest.model_validate(
        {"benchmark_config": CONFIG, "input_rows": rows, "scoring_functions": ["basic::ifeval"]}
    )
    found = evaluate_rows(request, names, lambda: url)
    assert sorted(asked) == sorted(row["prompt"] for row in ROWS), "the row that lacks a column was asked"
    scored = found.scores["basic::ifeval"]
    assert [row["score"] for row in scored.score_rows] == [0.5, 0.0, None]
    assert scored.score_rows[0]["not_followed"] == ["punctuation:no_comma"]
    assert "basic::ifeval needs instruction_id_list" in found.generations[2]["error"]
    inner = scored.aggregated_results["weighted_average"]
    # one of three instructions
    assert (inner["weighted_average"], inner["num_unscored"]) == (pytest.approx(1 / 3), 1)


def test_judges_and_embedding_models_are_those_of_the_catalogue(
    names: CatalogueNames, endpoint: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = endpoint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    for name, kind in (("judge", "llm"), ("vectors", "rerank")):
        config = f"model_id: {name}\nmodel_type: {kind}\nendpoint:\n  base_url: {url}\n"
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text(config)
    judge = {"type": "llm_as_judge", "judge_model": "judge"}
    params = {
        "llm-as-judge::base": {**judge, "prompt_template": "Grade {generated_answer}", "judge_score_regexes": ["^(R)"]},
        "braintrust::answer-similarity": {**judge, "embedding_model": "vectors"},
    }
    config = BenchmarkConfig.model_validate({**CONFIG, "scoring_params": params})
    request = EvaluateRowsRequest(
        benchmark_config=config,
        input_rows=[{"input_query": "Which?", "expected_answer": "Rome, Bern"}],
        scoring_functions=list(params),
    )
    found = evaluate_rows(request, names, lambda: url)
    assert [found.scores[name].score_rows[0]["score"] for name in params] == ["R", pytest.approx(1.0)]
    assert asked == ["Which?", "Grade Rome, Oslo", "Rome, Oslo", "Rome, Bern"]
    experiment = requests.evaluation("j1", "b", "instructions", list(params), config, names)
    assert {name: model.model_type for name, model in experiment.models.items()} == {
        "judge": "llm",
        "vectors": "rerank",
    }
    wrong = {"braintrust::answer-similarity": {**judge, "embedding_model": "judge"}}
    config = BenchmarkConfig.model_validate({**CONFIG, "scoring_params": wrong})
    with pytest.raises(MistakesError, match="'judge' writes text and makes no vectors"):
        requests.evaluation("j1", "b", "instructions", list(wrong), config, names)


def test_as_a_job_they_are_checked_before_it_begins(names: CatalogueNames) -> None:
    def compiled(*scorers: str) -> Compiled:
        config = BenchmarkConfig.model_validate(CONFIG)
        return compile_job(requests.evaluation("j1", "b", "instructions", scorers, config, names))

    assert compiled("basic::ifeval")
    with pytest.raises(MistakesError, match="basic::equality needs an expected answer"):
        compiled("basic::equality")  # whose own columns every row has, as a rule
    with pytest.raises(MistakesError) as told:
        compiled("basic::ifeval", "basic::equality")
    (mistake,) = told.value.mistakes
    assert mistake.where == "data set instructions:1"
    assert "basic::equality needs an expected answer" in mistake.message
    assert mistake.message.endswith("(the same in 1 more row: 2)")


def test_rows_for_a_reranker_are_ordered_and_scored(store: Store) -> None:
    """BM25 asks no engine: what it cannot use is told in its place."""
    row = {"query": "a cat", "items": ["dogs", "the cat"], "relevance": [0, 1]}
    request = EvaluateRowsRequest.model_validate(
        {
            "benchmark_config": {"eval_candidate": {"type": "rerank", "model": "bm25", "max_num_results": 1}},
            "input_rows": [row, {**row, "relevance": [1]}],
            "scoring_functions": ["rerank::ndcg", "rerank::mrr"],
        }
    )
    response = evaluate_rows(request, CatalogueNames(store), lambda: pytest.fail("no engine is needed"))
    assert [one["index"] for one in json.loads(response.generations[0]["generated_answer"])] == [1]
    assert "items are 2 and relevance 1" in response.generations[1]["error"]
    for name in request.scoring_functions:
        assert [scored["score"] for scored in response.scores[name].score_rows] == [1.0, None]
    config = {"eval_candidate": {"type": "rerank", "model": "tiny-llama"}}
    wrong = request.model_copy(update={"benchmark_config": BenchmarkConfig.model_validate(config)})
    with pytest.raises(MistakesError, match="'tiny-llama' has model_type llm, needed is rerank"):
        evaluate_rows(wrong, CatalogueNames(store), lambda: "")


def test_a_reranker_is_evaluated_as_a_job(store: Store) -> None:
    config = BenchmarkConfig.model_validate({"eval_candidate": {"type": "rerank", "model": "bm25"}})
    experiment = requests.evaluation(
        "eval-1", "help_questions", "help_questions", ["rerank::ndcg"], config, CatalogueNames(store)
    )
    compiled = compile_job(experiment)
    assert isinstance(compiled, Compiled)
    assert experiment.model.builtin == "bm25"


AGENT = {"type": "agent", "config": {"model": "there", "instructions": "", "toolgroups": ["calculator/calculator"]}}


def calculates(body: dict[str, Any], _: int) -> Any:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return last["content"]
    return Answer(calls=[("calculator", json.dumps({"expression": last["content"]}))])


def test_an_agent_answers_rows_while_the_caller_waits_and_as_a_job(
    llsflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    rows = [{"question": f"{n} * {n}", "answer": str(n * n)} for n in range(4)]
    with scripted(calculates) as script, Store.open() as store:
        endpoint = f"model_id: there\nendpoint:\n  base_url: {script.url}\n  retries: 0\n"
        (tmp_path / "conf" / "model" / "there.yaml").write_text(endpoint)
        asked = {"benchmark_config": {"eval_candidate": AGENT}, "input_rows": rows}
        request = EvaluateRowsRequest.model_validate({**asked, "scoring_functions": ["basic::equality"]})
        found = evaluate_rows(request, CatalogueNames(store), lambda: pytest.fail("no engine is needed"))
        assert [one["generated_answer"] for one in found.generations] == ["0", "1", "4", "9"]
        assert [len(one["steps"]) for one in found.generations] == [3] * 4
        source = {"type": "rows", "rows": rows}
        dataset = {"dataset_id": "sums4", "purpose": "eval/question-answer", "source": source}
        register(store, RegisterDatasetRequest.model_validate(dataset), SERVER)
        config = BenchmarkConfig.model_validate({"eval_candidate": AGENT})
        names = CatalogueNames(store)
        experiment = requests.evaluation("job-1", "sums4", "sums4", ["basic::equality"], config, names)
        assert list(experiment.toolgroups) == ["calculator"]
        wrong = {"type": "agent", "config": {**AGENT["config"], "toolgroups": ["calculater"], "client_tools": []}}
        with pytest.raises(MistakesError, match="no tool group 'calculater'"):
            requests.evaluation(
                *("job-2", "sums4", "sums4", ["basic::equality"]),
                BenchmarkConfig.model_validate({"eval_candidate": wrong}),
                names,
            )
