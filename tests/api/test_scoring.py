"""Scoring functions over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from llsflow.scorers import SCORERS
from tests.api.conftest import Served
from tests.api.errors import assert_error


def test_the_official_client(served: Served) -> None:
    listed = served.client.scoring_functions.list()
    assert [one.identifier for one in listed] == list(SCORERS)
    one = served.client.scoring_functions.retrieve("basic::equality")
    assert one.return_type.type == "number"
    assert one.params.aggregation_functions == ["accuracy"]  # type: ignore[union-attr]
    assert one.description
    regex = served.client.scoring_functions.retrieve("basic::regex_parser_math_response")
    assert regex.params.type == "regex_parser"  # type: ignore[union-attr]


def test_each_says_what_it_reads(http: httpx.Client) -> None:
    found = {one["identifier"]: one for one in http.get("/v1/scoring-functions").json()["data"]}
    ifeval = found["basic::ifeval"]
    assert ifeval["metadata"] == {"columns": ["instruction_id_list", "kwargs"], "optional_columns": []}
    assert ifeval["params"] == {
        "type": "basic",
        "aggregation_functions": ["weighted_average"],
        "strip_reasoning": True,
    }
    assert ifeval["description"].startswith("The share of a row's instructions")
    assert found["basic::bfcl"]["metadata"]["optional_columns"] == ["id", "language", "test_category"]
    assert found["basic::docvqa"]["metadata"]["columns"] == ["expected_answer"]
    assert all("  " not in one["description"] and one["description"].endswith(".") for one in found.values())


def test_a_users_own_is_listed_and_a_broken_one_says_why(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "own-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    points = "own::good = llsflow_test_own:Good\nown::bad = llsflow_test_own:Bad"
    (info / "entry_points.txt").write_text(f"[llsflow.scorers]\n{points}\n")
    (tmp_path / "llsflow_test_own.py").write_text(
        "from llsflow.scorers import SCORERS\n"
        "class Good(type(SCORERS['basic::equality'])):\n    'As good as equal.'\n    id = 'own::good'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {one["identifier"]: one for one in http.get("/v1/scoring-functions").json()["data"]}
    assert list(found) == [*SCORERS, "own::bad", "own::good"]
    assert found["own::good"]["description"] == "As good as equal."
    assert "cannot be loaded: AttributeError" in found["own::bad"]["description"]
    assert http.get("/v1/scoring-functions/own::good").json() == found["own::good"]
    assert http.get("/v1/scoring-functions/own::bad").json() == found["own::bad"]
    assert_error(http.get("/v1/scoring-functions/own::god"), 404, "did you mean 'own::good'?")
    del sys.modules["llsflow_test_own"]


def test_unknown_ones_are_told_with_the_nearest(http: httpx.Client) -> None:
    assert_error(http.get("/v1/scoring-functions/basic::equal"), 404, "; did you mean 'basic::equality'?")
