"""Data sets over HTTP, in every form that clients and the specification know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_stack_client import ConflictError, NotFoundError

from tests.api.conftest import ROWS, Served, register
from tests.api.errors import assert_error

PATH = "/v1beta/datasets"


def test_the_official_client(served: Served) -> None:
    client = served.client
    made = client.datasets.register(
        dataset_id="sums",
        purpose="eval/question-answer",
        source={"type": "rows", "rows": ROWS},
        metadata={"licence": "CC0"},
    )
    assert (made.identifier, made.provider_id, made.type, made.metadata) == (
        "sums",
        "llsflow",
        "dataset",
        {"licence": "CC0"},
    )
    assert client.datasets.retrieve("sums").to_dict() == made.to_dict()
    assert client.datasets.retrieve("sums").source.rows == ROWS  # type: ignore[union-attr]
    client.datasets.appendrows("sums", rows=[{"question": "1 + 2?", "answer": "3"}])
    page = client.datasets.iterrows("sums", start_index=9, limit=5)
    assert page.data == [ROWS[9], {"question": "1 + 2?", "answer": "3"}]
    assert page.has_more is False
    assert "sums" in [one.identifier for one in client.datasets.list()]
    client.datasets.unregister("sums")
    with pytest.raises(NotFoundError):
        client.datasets.retrieve("sums")


def test_a_name_is_made_where_none_is_given(http: httpx.Client) -> None:
    body = {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": ROWS}}
    names = {http.post(PATH, json=body).json()["identifier"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("dataset-") for name in names)


def test_names_may_hold_slashes(http: httpx.Client) -> None:
    assert register(http, "team/sums").status_code == 200
    assert http.get(f"{PATH}/team/sums").json()["identifier"] == "team/sums"
    assert http.get("/v1beta/datasetio/iterrows/team/sums", params={"limit": 1}).json()["data"] == ROWS[:1]
    assert http.delete(f"{PATH}/team/sums").status_code == 204


def test_the_same_again_is_the_same(http: httpx.Client) -> None:
    first = register(http)
    assert register(http).json() == first.json()


def test_a_conflict_changes_nothing(served: Served) -> None:
    first = register(served.http).json()
    refused = register(served.http, rows=ROWS[:3])
    assert_error(refused, 409, "sums")
    assert refused.headers["x-should-retry"] == "false"
    assert served.http.get(f"{PATH}/sums").json() == first
    assert served.http.get("/v1beta/datasetio/iterrows/sums").json()["data"] == ROWS
    with pytest.raises(ConflictError):
        served.client.datasets.register(
            dataset_id="sums", purpose="eval/question-answer", source={"type": "rows", "rows": ROWS[:3]}
        )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, ["purpose: is missing, allowed: one of post-training/messages", "source: is missing"]),
        (
            {"purpose": "training", "source": {"type": "rows", "rows": []}},
            ["purpose: found 'training', allowed: "],
        ),
        (
            {"purpose": "eval/question-answer", "source": {"type": "file"}},
            ["source.type: found 'file', allowed:"],
        ),
        ({"purpose": "eval/question-answer", "source": {"rows": []}}, ["source.type: is missing, allowed: uri, rows"]),
        (
            {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": [5]}},
            ["source.rows.0: found 5, allowed: a mapping"],
        ),
        (
            {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": [{"answer": "?"}, {"a": 1}]}},
            ["row 1", "row 2"],
        ),
        (
            {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": ROWS}, "dataset_id": "../x"},
            ["dataset_id: found '../x', allowed: a name of letters"],
        ),
        # clients and proxies take .. and empty parts out of a path: nobody could reach these
        *(
            (
                {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": ROWS}, "dataset_id": lost},
                [f"dataset_id: found '{lost}', allowed: a name of letters", "each part between / begins with"],
            )
            for lost in ("a/../b", "a/./b", "a//b", "a/")
        ),
        (
            {"pourpose": "eval/question-answer", "source": {"type": "rows", "rows": ROWS}},
            ["purpose: is missing", "the unknown field 'pourpose' looks like it"],
        ),
    ],
)
def test_refusals_name_the_field_what_was_found_and_what_is_allowed(
    http: httpx.Client, body: dict[str, Any], told: list[str]
) -> None:
    before = http.get(PATH).json()
    assert_error(http.post(PATH, json=body), 400, *told)
    assert http.get(PATH).json() == before


def test_rows_that_do_not_fit_the_purpose_change_nothing(http: httpx.Client) -> None:
    assert_error(register(http, rows=[*ROWS, {"answer": "no question"}]), 400, "row 11")
    assert_error(http.get(f"{PATH}/sums"), 404, "sums")


def test_the_form_of_the_query_has_no_source(http: httpx.Client) -> None:
    query = {"purpose": "eval/question-answer", "dataset_id": "sums", "metadata": '{"licence": "CC0"}'}
    assert_error(http.post(PATH, params=query), 400, "source: is missing")
    source = json.dumps({"type": "rows", "rows": ROWS})
    made = http.post(PATH, params={**query, "source": source}).json()
    assert (made["identifier"], made["metadata"], made["num_rows"]) == ("sums", {"licence": "CC0"}, 10)


def test_only_the_first_inline_rows_are_shown_and_none_in_lists(http: httpx.Client) -> None:
    many = [{"question": str(n), "answer": str(n)} for n in range(150)]
    assert len(register(http, rows=many).json()["source"]["rows"]) == 100
    shown = http.get(f"{PATH}/sums").json()
    assert (len(shown["source"]["rows"]), shown["num_rows"]) == (100, 150)
    listed = next(one for one in http.get(PATH).json()["data"] if one["identifier"] == "sums")
    assert listed["source"] == {"type": "rows", "rows": []}


def test_a_large_body_is_read_aside(http: httpx.Client) -> None:
    many = [{"question": "?" * 100, "answer": str(n)} for n in range(2000)]
    made = register(http, rows=many)
    assert made.json()["num_rows"] == 2000
    assert_error(register(http, "other", rows=[*many, {"answer": "?"}]), 400, "row 2001")
    body = {
        "dataset_id": "typo",
        "purpose": "eval/question-answer",
        "source": {"type": "rows", "rows": many},
        "metdata": 1,
    }
    assert http.post(PATH, json=body).headers["x-ignored-fields"] == "metdata"


def test_a_file_under_home_is_read_aside(http: httpx.Client, llsflow_home: Path) -> None:
    (llsflow_home / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    body = {
        "dataset_id": "file",
        "purpose": "eval/question-answer",
        "source": {"type": "uri", "uri": "lsfs://sums.jsonl"},
    }
    made = http.post(PATH, json=body).json()
    assert (made["source"], made["num_rows"]) == (body["source"], 10)
    assert http.get("/v1beta/datasetio/iterrows/file").json()["data"] == ROWS
    body["source"] = {"type": "uri", "uri": "lsfs://none.jsonl"}
    refused = http.post(PATH, json={**body, "dataset_id": "none"})
    assert_error(refused, 400)
    assert str(llsflow_home) not in refused.text


def test_data_sets_of_conf_are_in_the_catalogue(http: httpx.Client) -> None:
    listed = {one["identifier"]: one for one in http.get(PATH).json()["data"]}
    assert listed["iso_dates"]["provider_id"] == "conf"
    shown = http.get(f"{PATH}/iso_dates_held_out").json()
    assert (shown["provider_id"], shown["num_rows"]) == ("conf", 200)
    page = http.get("/v1beta/datasetio/iterrows/iso_dates_held_out", params={"limit": 2}).json()
    assert len(page["data"]) == 2
    assert_error(http.delete(f"{PATH}/iso_dates"), 409, "file of conf/dataset")
    assert_error(register(http, "iso_dates"), 409, "file of conf/dataset")
    rows = {"rows": [{"question": "?", "answer": "!"}]}
    assert_error(http.post("/v1beta/datasetio/append-rows/iso_dates", json=rows), 409, "file of conf/dataset")


def test_one_that_is_in_use_stays(served: Served) -> None:
    http = served.http
    register(http)
    body = {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": ["basic::equality"]}
    assert http.post("/v1alpha/eval/benchmarks", json=body).status_code == 200
    assert_error(http.delete(f"{PATH}/sums"), 409, "benchmark sums", "unregister it first")
    config = {"eval_candidate": {"type": "model", "model": "tiny", "sampling_params": {}}}
    job = http.post("/v1alpha/eval/benchmarks/sums/jobs", json={"benchmark_config": config}).json()
    assert_error(http.delete(f"{PATH}/sums"), 409, job["job_id"])
    assert http.get(f"{PATH}/sums").status_code == 200


def test_unknown_ones_are_told_with_the_nearest(http: httpx.Client) -> None:
    register(http)
    for method, path in (("GET", f"{PATH}/sum"), ("GET", "/v1beta/datasetio/iterrows/sum")):
        assert_error(http.request(method, path), 404, "'sum'")
    assert_error(http.get(f"{PATH}/sum"), 404, "did you mean 'sums'?")
    assert_error(http.delete(f"{PATH}/sum"), 404)
    assert_error(http.get(f"{PATH}/{'x' * 3000}"), 404)
    assert_error(http.post("/v1beta/datasetio/append-rows/sum", json={"rows": ROWS}), 404)
