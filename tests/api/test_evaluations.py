"""Evaluations over HTTP: as jobs, and of rows while the caller waits."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from llama_stack_client import NotFoundError

from llsflow.schema.jobs import JobStatus
from tests.api.conftest import ROWS, Served, register
from tests.api.errors import assert_error

PATH = "/v1alpha/eval/benchmarks/sums"
CONFIG: dict[str, Any] = {
    "eval_candidate": {"type": "model", "model": "tiny", "sampling_params": {"strategy": {"type": "greedy"}}}
}


@pytest.fixture(autouse=True)
def benchmark(http: httpx.Client) -> None:
    """A benchmark of ten rows."""
    register(http)
    body = {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": ["basic::equality"]}
    assert http.post("/v1alpha/eval/benchmarks", json=body).status_code == 200


def test_the_official_client(served: Served) -> None:
    evaluation = served.client.alpha.eval
    job = evaluation.run_eval("sums", benchmark_config=CONFIG)  # type: ignore[arg-type]
    assert job.status == "scheduled"
    assert evaluation.jobs.status(job.job_id, benchmark_id="sums") == job
    result = b'{"generations":[{"generated_answer":"4"}],"scores":{}}'
    served.services.store.jobs.update(job.job_id, status=JobStatus.COMPLETED)
    served.services.store.jobs.set_result(job.job_id, result)
    assert evaluation.jobs.retrieve(job.job_id, benchmark_id="sums").generations == [{"generated_answer": "4"}]
    other = evaluation.run_eval("sums", benchmark_config=CONFIG)  # type: ignore[arg-type]
    evaluation.jobs.cancel(other.job_id, benchmark_id="sums")
    assert evaluation.jobs.status(other.job_id, benchmark_id="sums").status == "cancelled"
    with pytest.raises(NotFoundError):
        evaluation.jobs.status("none", benchmark_id="sums")
    rows = evaluation.evaluate_rows(
        "sums",
        benchmark_config=CONFIG,  # type: ignore[arg-type]
        input_rows=ROWS[:2],
        scoring_functions=["basic::equality"],
    )
    assert (len(rows.generations), list(rows.scores)) == (2, ["basic::equality"])


@pytest.mark.parametrize("body", [{"benchmark_config": CONFIG}, CONFIG])
def test_both_forms_begin_a_job(served: Served, body: dict[str, Any]) -> None:
    job = served.http.post(f"{PATH}/jobs", json=body).json()
    assert (job["status"], job["benchmark_id"]) == ("scheduled", "sums")
    assert served.http.get(f"{PATH}/jobs/{job['job_id']}").json() == job


def test_what_a_client_sends_again_is_told_to_the_jobs(served: Served) -> None:
    for count, retried in (("0", False), ("1", True)):
        served.http.post(f"{PATH}/jobs", json=CONFIG, headers={"x-stainless-retry-count": count})
        assert served.services.jobs.asked[-1][1] is retried  # type: ignore[attr-defined]


def test_clients_send_fields_that_nothing_reads(http: httpx.Client) -> None:
    config = {
        "type": "benchmark",
        "eval_candidate": {"type": "model", "model": "tiny", "sampling_params": {"temperature": 0.0, "stratgy": 1}},
    }
    answer = http.post(f"{PATH}/jobs", json={"benchmark_config": config})
    assert answer.status_code == 200
    assert answer.headers["x-ignored-fields"] == (
        "benchmark_config.type, benchmark_config.eval_candidate.sampling_params.temperature, "
        "benchmark_config.eval_candidate.sampling_params.stratgy"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_examples": 0}, "num_examples: found 0, allowed: an integer of at least 1"),
        ({"num_examples": "all"}, "num_examples: found 'all', allowed: an integer of at least 1"),
        ({"eval_candidate": {"type": "agent", "config": {}}}, "eval_candidate.config.model: is missing"),
        ({"eval_candidate": {"type": "robot"}}, "eval_candidate.type: found 'robot', allowed: model, rerank, agent"),
        (
            {"scoring_params": {"basic::equality": {"type": "fuzzy"}}},
            "scoring_params.basic::equality.type: found",
        ),
    ],
)
def test_refusals_name_the_field_as_it_was_sent(http: httpx.Client, change: dict[str, Any], told: str) -> None:
    config = {**CONFIG, **change}
    assert_error(http.post(f"{PATH}/jobs", json={"benchmark_config": config}), 400, f"benchmark_config.{told}")
    bare = assert_error(http.post(f"{PATH}/jobs", json=config), 400, told)
    assert "benchmark_config" not in bare.detail


def test_rows_are_needed(http: httpx.Client) -> None:
    body = {"benchmark_config": CONFIG, "scoring_functions": ["basic::equality"]}
    assert_error(
        http.post(f"{PATH}/evaluations", json={**body, "input_rows": []}), 400, "input_rows: found an empty list"
    )
    assert_error(http.post(f"{PATH}/evaluations", json=body), 400, "input_rows: is missing")


@pytest.mark.parametrize(("examples", "rows"), [(None, 10), (3, 3), (50, 10)])
def test_a_bare_configuration_evaluates_the_benchmarks_own_rows(
    served: Served, examples: int | None, rows: int
) -> None:
    answer = served.http.post(f"{PATH}/evaluations", json={**CONFIG, "num_examples": examples})
    assert (len(answer.json()["generations"]), list(answer.json()["scores"])) == (rows, ["basic::equality"])
    assert served.services.jobs.asked[-1].input_rows == ROWS[:rows]  # type: ignore[attr-defined]


def test_more_rows_than_a_request_can_wait_for_are_a_job(http: httpx.Client) -> None:
    many = [{"question": str(n), "answer": str(n)} for n in range(1001)]
    register(http, "many", many)
    body = {"benchmark_id": "many", "dataset_id": "many", "scoring_functions": ["basic::equality"]}
    assert http.post("/v1alpha/eval/benchmarks", json=body).status_code == 200
    path = "/v1alpha/eval/benchmarks/many/evaluations"
    assert_error(http.post(path, json=CONFIG), 400, "num_examples: ", "…/jobs")
    assert len(http.post(path, json={**CONFIG, "num_examples": 1000}).json()["generations"]) == 1000


def test_what_is_not_there_and_what_has_not_come(http: httpx.Client) -> None:
    job = http.post(f"{PATH}/jobs", json=CONFIG).json()["job_id"]
    assert_error(http.get(f"{PATH}/jobs/{job}/result"), 409, "has no result")
    for method, path in (
        ("GET", f"{PATH}/jobs/none"),
        ("GET", f"{PATH}/jobs/none/result"),
        ("DELETE", f"{PATH}/jobs/none"),
        ("GET", f"/v1alpha/eval/benchmarks/other/jobs/{job}"),
    ):
        assert_error(http.request(method, path), 404)
    assert_error(http.post("/v1alpha/eval/benchmarks/other/jobs", json=CONFIG), 404, "other")
    assert_error(http.post("/v1alpha/eval/benchmarks/other/evaluations", json=CONFIG), 404, "other")
    assert http.delete(f"{PATH}/jobs/{job}").status_code == 204
    ended = http.delete(f"{PATH}/jobs/{job}")
    assert_error(ended, 409, "has ended")
    assert ended.headers["x-should-retry"] == "false"


def test_old_paths_lead_to_the_same(http: httpx.Client) -> None:
    assert http.post("/v1/eval/benchmarks/sums/jobs", json=CONFIG).status_code == 200
    assert http.get("/v1/eval/benchmarks/sums").json()["identifier"] == "sums"
