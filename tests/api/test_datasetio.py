"""Pages of rows and rows appended: by index, exactly as they came in, with many at it at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from llsflow.api.deps import Services
from llsflow.schema.server import ServerConfig
from tests.api.conftest import ROWS, Served, register, serve
from tests.api.errors import assert_error

ITER = "/v1beta/datasetio/iterrows/sums"
APPEND = "/v1beta/datasetio/append-rows/sums"


@pytest.mark.parametrize(
    ("query", "rows", "has_more", "url"),
    [
        ({}, ROWS, False, None),
        ({"limit": -1}, ROWS, False, None),
        ({"limit": -1, "start_index": 8}, ROWS[8:], False, None),
        ({"start_index": 8}, ROWS[8:], False, None),
        ({"limit": 10}, ROWS, False, None),
        ({"limit": 9}, ROWS[:9], True, f"{ITER}?start_index=9&limit=9"),
        ({"limit": 3, "start_index": 2}, ROWS[2:5], True, f"{ITER}?start_index=5&limit=3"),
        ({"limit": 3, "start_index": 7}, ROWS[7:], False, None),
        ({"limit": 3, "start_index": 10}, [], False, None),
        ({"limit": 3, "start_index": 10**12}, [], False, None),
    ],
)
def test_a_page(http: httpx.Client, query: dict[str, int], rows: list[Any], has_more: bool, url: str | None) -> None:
    register(http)
    assert http.get(ITER, params=query).json() == {"data": rows, "has_more": has_more, "url": url}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"limit": 0}, "limit: found 0, allowed: at least 1, or -1"),
        ({"limit": -2}, "limit: found -2, allowed: at least 1, or -1"),
        ({"limit": "ten"}, "limit: found 'ten', allowed: an integer"),
        ({"limit": "1.0"}, "limit: found 1.0, allowed: an integer"),
        ({"limit": ""}, "limit: found '', allowed: an integer"),
        ({"limit": "true"}, "limit: found true, allowed: an integer"),
        ({"start_index": -1}, "start_index: found -1, allowed: an integer of at least 0"),
        ({"start_index": "0x1"}, "start_index: found '0x1', allowed: an integer"),
    ],
)
def test_what_is_no_page(http: httpx.Client, query: dict[str, Any], told: str) -> None:
    register(http)
    assert_error(http.get(ITER, params=query), 400, told)


def test_both_mistakes_are_told(http: httpx.Client) -> None:
    assert_error(http.get(ITER, params={"limit": 0, "start_index": -1}), 400, "limit: ", "start_index: ")


def test_the_next_pages_lead_to_the_end(http: httpx.Client) -> None:
    register(http)
    found: list[Any] = []
    url: str | None = f"{ITER}?limit=3"
    while url:
        page = http.get(url).json()
        found += page["data"]
        url = page["url"]
        assert page["has_more"] is (url is not None)
    assert found == ROWS


def test_a_page_holds_at_most_what_the_server_gives(services: Services) -> None:
    services.server = ServerConfig(port=0, max_page_rows=4)
    for served in serve(services):
        register(served.http)
        for query in ({}, {"limit": -1}, {"limit": 9}):
            page = served.http.get(ITER, params=query).json()
            assert (page["data"], page["has_more"]) == (ROWS[:4], True)
            rest = served.http.get(page["url"]).json()
            assert rest["data"] == ROWS[4:8]


def test_values_come_back_exactly(http: httpx.Client) -> None:
    rows = [
        {"question": "q", "answer": "a", "int": 1, "float": 1.0, "big": 10**40, "yes": True, "none": None},
        {"question": "q\u0000\u2028 😀", "answer": "a", "nested": {"": [[], {}, [1, "1"]]}, "small": 1e-320},
    ]
    body = b'{"rows": [{"question": "q", "answer": "a", "note": "\\ud800 alone"}]}'
    register(http, rows=rows)
    assert http.post(APPEND, content=body, headers={"Content-Type": "application/json"}).status_code == 200
    found = http.get(ITER).json()["data"]
    assert json.dumps(found) == json.dumps([*rows, {"question": "q", "answer": "a", "note": "\ud800 alone"}])
    assert http.get("/v1beta/datasets/sums").status_code == 200


def test_appended_rows_come_last_and_change_the_digest(http: httpx.Client) -> None:
    before = register(http).json()
    after = http.post(APPEND, json={"rows": ROWS[:2]}).json()
    assert (after["num_rows"], after["digest"] == before["digest"]) == (12, False)
    assert http.get(ITER).json()["data"] == [*ROWS, *ROWS[:2]]
    assert http.get("/v1beta/datasets/sums").json()["digest"] == after["digest"]


def test_no_rows_are_nothing(http: httpx.Client) -> None:
    before = register(http).json()
    assert http.post(APPEND, json={"rows": []}).json()["digest"] == before["digest"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "rows: is missing, allowed: a list (each a mapping)"),
        ({"rows": {"question": "?"}}, "rows: found a mapping, allowed: a list"),
        ({"rows": ["text"]}, "rows.0: found 'text', allowed: a mapping"),
        ({"rows": [{"question": "?", "answer": "!"}, {"answer": "?"}]}, "row 2"),
        ([{"question": "?", "answer": "!"}], "body: found a list, allowed: an object"),
    ],
)
def test_rows_that_cannot_be_appended_change_nothing(http: httpx.Client, body: Any, told: str) -> None:
    before = register(http).json()
    assert_error(http.post(APPEND, json=body), 400, told)
    assert http.get("/v1beta/datasets/sums").json() == before


def test_the_form_of_the_query_is_never_required_and_means_nothing(http: httpx.Client) -> None:
    register(http)
    answer = http.post(APPEND, params={"args": "1", "kwargs": "{}"}, json={"rows": ROWS[:1]})
    assert (answer.status_code, answer.headers.get("x-ignored-fields")) == (200, None)
    assert_error(http.post(APPEND, params={"args": "1", "kwargs": "{}"}), 400, "rows: is missing")


def test_many_writers_lose_nothing(served: Served) -> None:
    register(served.http, rows=[])

    def write(writer: int) -> None:
        with httpx.Client(base_url=served.url) as http:
            for turn in range(5):
                rows = [{"question": f"{writer}-{turn}-{n}", "answer": "x"} for n in range(7)]
                assert http.post(APPEND, json={"rows": rows}).status_code == 200

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    found = [row["question"] for row in served.http.get(ITER).json()["data"]]
    assert sorted(found) == sorted(f"{w}-{t}-{n}" for w in range(16) for t in range(5) for n in range(7))
    # each append stays together, and each writer's appends in their order
    assert all([found.index(f"{w}-{t}-{n}") for n in range(7)] for w in range(16) for t in range(5))
    for writer in range(16):
        own = [name for name in found if name.startswith(f"{writer}-")]
        assert own == [f"{writer}-{t}-{n}" for t in range(5) for n in range(7)]


def test_many_rows_are_checked_aside(http: httpx.Client) -> None:
    register(http)
    many = [{"question": "?" * 100, "answer": str(n)} for n in range(2000)]
    assert http.post(APPEND, json={"rows": many}).json()["num_rows"] == 2010
    assert_error(http.post(APPEND, json={"rows": [*many, {"answer": "!"}]}), 400, "row 2001")
    assert http.get(ITER, params={"start_index": 2009}).json()["data"] == many[-1:]
