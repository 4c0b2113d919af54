"""wolfram_alpha: what is asked, and what a model reads of the answer."""

from __future__ import annotations

import logging

import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.toolgroups import WolframAlpha
from llsflow.tools.base import ToolError, ToolResult
from llsflow.tools.wolfram_alpha import WolframAlphaTool
from tests.tools.calling import call, tools_of
from tests.tools.recorded import Recorded, Reply, recorded

KEY = "XXXX-VERY-SECRET"
ANSWER = """Query:
"10 densest elemental metals"

Input interpretation:
10 densest metallic elements | by mass density

Result:
1 | hassium | 41 g/cm^3 |

Wolfram|Alpha website result for "10 densest elemental metals":
https://www.wolframalpha.com/input?i=10+densest+elemental+metals
"""
"""As in products.wolframalpha.com/llm-api/documentation, shortened."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOLFRAM_ALPHA_API_KEY", KEY)


def ask(site: Recorded) -> ToolResult:
    return call(WolframAlphaTool(WolframAlpha(base_url=site.url)), "wolfram_alpha", query="10 densest elemental metals")


def test_the_appid_is_in_no_address_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), recorded(Reply(ANSWER.encode())) as site:
        ask(site)
    (asked,) = site.asked
    assert (asked.method, asked.path) == ("GET", "/v1/llm-api")
    assert asked.query == {"input": ["10 densest elemental metals"], "maxchars": ["6800"]}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text


def test_a_model_reads_the_answer_as_it_is() -> None:
    with recorded(Reply(ANSWER.encode())) as site:
        assert ask(site) == ToolResult(ANSWER.strip())


def test_suggestions_are_passed_on() -> None:
    said = b"Wolfram|Alpha did not understand your input\nThings to try instead:\ndensest metals"
    with recorded(Reply(said, 501)) as site, pytest.raises(ToolError) as raised:
        ask(site)
    assert str(raised.value).startswith("Wolfram|Alpha does not understand the query: ")
    assert "densest metals" in str(raised.value)
    with recorded(Reply(b"", 501)) as site, pytest.raises(ToolError, match="say it in other words"):
        ask(site)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(f"Error 1: Invalid appid {KEY}".encode(), 403), "refuses the key of WOLFRAM_ALPHA_API_KEY"),
        (Reply(b"<!doctype html>"), "something that is no text"),
        (Reply(b""), "something that is no text"),
        (Reply(b"", 500), "answers with HTTP 500"),
    ],
)
def test_what_is_no_answer_is_told(reply: Reply, sentence: str) -> None:
    with recorded(reply) as site, pytest.raises(ToolError, match=sentence) as raised:
        ask(site)
    assert KEY not in str(raised.value)


def test_the_appid_is_in_no_answer() -> None:
    with recorded(Reply(f"see https://www.wolframalpha.com/x?appid={KEY}".encode())) as site:
        assert KEY not in str(ask(site).content)


def test_long_answers_are_cut() -> None:
    with recorded(Reply(b"x" * 10_000)) as site:
        assert len(str(ask(site).content)) == 6_800


def test_the_tool_is_there_once_an_appid_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (tool,) = tools_of(WolframAlphaTool(WolframAlpha()))
    assert (tool.name, (tool.input_schema or {})["required"]) == ("wolfram_alpha", ["query"])
    monkeypatch.delenv("WOLFRAM_ALPHA_API_KEY")
    with pytest.raises(UnavailableError, match="WOLFRAM_ALPHA_API_KEY is not set"):
        tools_of(WolframAlphaTool(WolframAlpha()))
