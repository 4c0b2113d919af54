"""brave_search: what is asked, and what a model reads of the answer."""

from __future__ import annotations

import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.toolgroups import BraveSearch
from llsflow.tools.base import ToolError, ToolResult
from llsflow.tools.brave_search import BraveSearchTool
from tests.tools.calling import call, tools_of
from tests.tools.recorded import Recorded, Reply, recorded

KEY = "BSA-very-secret"
FOUND = {
    "type": "search",
    "query": {"original": "greek philosophers", "more_results_available": True},
    "web": {
        "type": "search",
        "results": [
            {
                "title": "Ancient Greek <strong>philosophy</strong> - Wikipedia",
                "url": "https://en.wikipedia.org/wiki/Ancient_Greek_philosophy",
                "is_source_local": False,
                "description": "<strong>Socrates</strong> &amp; Plato&#x27;s\n age, when 1 &lt; 2 and a < b",
                "age": "June 3, 2024",
                "meta_url": {"scheme": "https", "netloc": "en.wikipedia.org"},
            },
            {"title": "Second", "url": "https://second.example/"},
            {"title": "Third", "url": "https://third.example/", "description": "x" * 5000},
        ],
    },
}
"""As in api-dashboard.search.brave.com/app/documentation/web-search/responses, shortened."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAVE_SEARCH_API_KEY", KEY)


def search(site: Recorded, query: str = "greek philosophers", max_results: int = 2) -> ToolResult:
    tool = BraveSearchTool(BraveSearch(base_url=site.url, max_results=max_results))
    return call(tool, "brave_search", query=query)


def test_the_request_is_braves_own() -> None:
    with recorded(Reply(FOUND)) as site:
        search(site)
    (asked,) = site.asked
    assert (asked.method, asked.path) == ("GET", "/v1/web/search")
    assert asked.query == {"q": ["greek philosophers"], "count": ["2"]}
    assert asked.headers["x-subscription-token"] == KEY


def test_a_model_reads_plain_text() -> None:
    with recorded(Reply(FOUND)) as site:
        found = search(site)
    assert found.content == (
        "1. Ancient Greek philosophy - Wikipedia\n"
        "https://en.wikipedia.org/wiki/Ancient_Greek_philosophy\n"
        "Socrates & Plato's age, when 1 < 2 and a < b\n"
        "\n"
        "2. Second\n"
        "https://second.example/"
    )
    assert found.metadata == {
        "urls": ["https://en.wikipedia.org/wiki/Ancient_Greek_philosophy", "https://second.example/"]
    }


def test_long_descriptions_are_cut() -> None:
    with recorded(Reply(FOUND)) as site:
        assert str(search(site, max_results=3).content).endswith("\n" + "x" * 1000)


def test_nothing_found_is_said() -> None:
    with recorded(Reply({"type": "search", "query": {}})) as site:
        found = search(site, "qwxz")
    assert found == ToolResult("No page was found for 'qwxz': try other words.", {"urls": []})


@pytest.mark.parametrize("body", [[], {"web": []}, {"web": {"results": [{"title": "a"}]}}, {"web": {"results": "x"}}])
def test_what_is_no_search_result_is_told(body: object) -> None:
    body = body or [1]
    with recorded(Reply(body)) as site:
        if body == {"web": []}:
            assert search(site).metadata == {"urls": []}
            return
        with pytest.raises(ToolError, match="something that is no search result"):
            search(site)


def test_the_tool_is_there_once_a_key_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (tool,) = tools_of(BraveSearchTool(BraveSearch()))
    assert tool.name == "brave_search"
    assert tool.input_schema is not None
    assert (tool.input_schema["required"], tool.input_schema["additionalProperties"]) == (["query"], False)
    monkeypatch.delenv("BRAVE_SEARCH_API_KEY")
    with pytest.raises(UnavailableError, match="BRAVE_SEARCH_API_KEY is not set"):
        tools_of(BraveSearchTool(BraveSearch()))
