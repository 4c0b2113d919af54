"""Scoring functions over HTTP."""

from __future__ import annotations

import httpx

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


def test_unknown_ones_are_told_with_the_nearest(http: httpx.Client) -> None:
    assert_error(http.get("/v1/scoring-functions/basic::equal"), 404, "did you mean 'basic::equality'?", "known are")
