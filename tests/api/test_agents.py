"""Agents: published, and refused before anything is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.api.errors import assert_error

CONTRACT = json.loads((Path(__file__).parent / "contract.json").read_text("utf-8"))["operations"]
NOT_YET = [one for one in CONTRACT.values() if "/agents" in one["path"]]


@pytest.mark.parametrize("operation", NOT_YET, ids=lambda one: f"{one['method']} {one['path']}")
def test_they_are_not_available_yet(http: httpx.Client, operation: dict[str, str]) -> None:
    path = operation["path"].replace("{", "").replace("}", "")
    for content in (None, b"{not json"):
        assert_error(http.request(operation["method"], path, content=content), 404, "not available yet")
    old = http.request(operation["method"], path.replace("/v1alpha/", "/v1/"))
    assert_error(old, 404, "not available yet")


def test_all_of_them() -> None:
    assert len(NOT_YET) == 12
