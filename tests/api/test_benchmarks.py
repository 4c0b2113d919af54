"""Benchmarks over HTTP: nothing is registered that could not be run."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from llama_stack_client import NotFoundError

from tests.api.conftest import Served, register
from tests.api.errors import assert_error

PATH = "/v1alpha/eval/benchmarks"
BENCHMARK = {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": ["basic::equality"]}


@pytest.fixture(autouse=True)
def dataset(http: httpx.Client) -> None:
    """The rows."""
    register(http)


def test_the_official_client(served: Served) -> None:
    client = served.client
    client.benchmarks.register(
        benchmark_id="sums",
        dataset_id="sums",
        scoring_functions=["basic::equality"],
        metadata={"by": "us"},
        provider_benchmark_id="sums",
        provider_id="llsflow",
    )
    found = client.benchmarks.retrieve("sums")
    assert (found.identifier, found.dataset_id, found.scoring_functions, found.metadata, found.type) == (
        "sums",
        "sums",
        ["basic::equality"],
        {"by": "us"},
        "benchmark",
    )
    assert "sums" in [one.identifier for one in client.benchmarks.list()]
    assert served.http.delete(f"{PATH}/sums").status_code == 204
    with pytest.raises(NotFoundError):
        client.benchmarks.retrieve("sums")


def test_names_may_hold_slashes_but_no_words_of_paths(http: httpx.Client) -> None:
    assert http.post(PATH, json={**BENCHMARK, "benchmark_id": "team/sums"}).status_code == 200
    assert http.get(f"{PATH}/team/sums").json()["identifier"] == "team/sums"
    for name in ("team/jobs", "team/jobs/x", "team/evaluations"):
        assert_error(http.post(PATH, json={**BENCHMARK, "benchmark_id": name}), 400, "benchmark_id: ")
    assert http.post(PATH, json={**BENCHMARK, "benchmark_id": "jobs"}).status_code == 200
    assert http.get(f"{PATH}/jobs").json()["identifier"] == "jobs"
    assert http.delete(f"{PATH}/team/sums").status_code == 204


def test_the_same_again_is_the_same_and_another_is_a_conflict(http: httpx.Client) -> None:
    for _ in range(2):
        answer = http.post(PATH, json=BENCHMARK)
        assert (answer.status_code, answer.json()) == (200, None)
    other = http.post(PATH, json={**BENCHMARK, "scoring_functions": ["basic::subset_of"]})
    assert_error(other, 409, "sums")
    assert other.headers["x-should-retry"] == "false"
    assert http.get(f"{PATH}/sums").json()["scoring_functions"] == ["basic::equality"]


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"dataset_id": "sum"}, 404, ["no data set 'sum'; did you mean 'sums'?"]),
        (
            {"scoring_functions": ["basic::equal"]},
            400,
            ["scoring_functions.0: ", "basic::subset_of"],
        ),
        ({"scoring_functions": []}, 400, ["scoring_functions: found an empty list, allowed: a list of at least 1"]),
        ({"scoring_functions": ["basic::equality"] * 2}, 400, ["scoring_functions: names one twice"]),
        (
            {"scoring_functions": "basic::equality"},
            400,
            ["scoring_functions: found 'basic::equality', allowed:"],
        ),
        ({"provider_benchmark_id": "other"}, 400, ["provider_benchmark_id: found 'other', allowed: "]),
        ({"provider_id": "meta-reference"}, 400, ["provider_id: found 'meta-reference', allowed: llsflow"]),
        ({"dataset_id": "iso_dates"}, 400, ["has purpose post-training/messages, allowed: eval/question-answer"]),
        ({"dataset_id": "sums:held_out"}, 400, ["dataset_id: "]),
        ({"benchmark_id": "iso_dates"}, 409, ["a file of conf/benchmark"]),
        ({"benchmark_id": 5}, 400, ["benchmark_id: found 5, allowed: a name"]),
    ],
)
def test_refusals(http: httpx.Client, change: dict[str, Any], status: int, told: list[str]) -> None:
    before = http.get(PATH).json()
    assert_error(http.post(PATH, json={**BENCHMARK, **change}), status, *told)
    assert http.get(PATH).json() == before


@pytest.mark.parametrize("name", ["llm-as-judge::base", "braintrust::factuality"])
def test_a_judge_is_named_by_each_evaluation(http: httpx.Client, name: str) -> None:
    assert http.post(PATH, json={**BENCHMARK, "scoring_functions": [name]}).status_code == 200


def test_rows_for_rerankers_make_a_benchmark(http: httpx.Client) -> None:
    rows = [{"query": "a cat", "items": ["dogs", "the cat"], "relevance": [0, 1]}]
    body = {"dataset_id": "ranked", "purpose": "eval/rerank", "source": {"type": "rows", "rows": rows}}
    http.post("/v1beta/datasets", json=body).raise_for_status()
    given = {"benchmark_id": "found", "dataset_id": "ranked", "scoring_functions": ["rerank::ndcg"]}
    assert http.post(PATH, json=given).status_code == 200
    short = {**body, "dataset_id": "short", "source": {"type": "rows", "rows": [{**rows[0], "relevance": [1]}]}}
    assert_error(http.post("/v1beta/datasets", json=short), 400, "items are 2 and relevance 1")


def test_every_mistake_is_told_at_once(http: httpx.Client) -> None:
    assert_error(http.post(PATH, json={}), 400, "benchmark_id: ", "dataset_id: ", "scoring_functions: ")
    body = {**BENCHMARK, "scoring_functions": ["x"], "provider_id": "y"}
    assert_error(http.post(PATH, json=body), 400, "scoring_functions.0: ", "provider_id: ")


def test_the_form_of_the_query(http: httpx.Client) -> None:
    query = {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": "basic::equality,basic::subset_of"}
    assert http.post(PATH, params={**query, "args": "", "kwargs": ""}).status_code == 200
    assert http.get(f"{PATH}/sums").json()["scoring_functions"] == ["basic::equality", "basic::subset_of"]


def test_those_of_conf_are_in_the_catalogue(http: httpx.Client) -> None:
    listed = {one["identifier"]: one for one in http.get(PATH).json()["data"]}
    assert listed["iso_dates"]["provider_id"] == "conf"
    # its data set is left open: a template
    assert "held_out" not in listed
    assert http.get(f"{PATH}/iso_dates").json() == listed["iso_dates"]
    assert_error(http.delete(f"{PATH}/iso_dates"), 409, "a file of conf/benchmark")


def test_one_that_is_run_stays(http: httpx.Client) -> None:
    http.post(PATH, json=BENCHMARK)
    config = {"eval_candidate": {"type": "model", "model": "tiny", "sampling_params": {}}}
    job = http.post(f"{PATH}/sums/jobs", json={"benchmark_config": config}).json()["job_id"]
    assert_error(http.delete(f"{PATH}/sums"), 409, job)
    assert http.delete(f"{PATH}/sums/jobs/{job}").status_code == 204
    assert http.delete(f"{PATH}/sums").status_code == 204


def test_unknown_ones_are_told_with_the_nearest(http: httpx.Client) -> None:
    http.post(PATH, json=BENCHMARK)
    assert_error(http.get(f"{PATH}/sum"), 404, "no benchmark 'sum'; did you mean 'sums'?")
    assert_error(http.delete(f"{PATH}/sum"), 404, "no benchmark 'sum'")
