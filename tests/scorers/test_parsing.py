"""Regexes from users: refused before the run when they cannot work, stopped when they take too long."""

from __future__ import annotations

import pytest

from llsflow.schema.scoring import RegexParserScoringFnParams
from llsflow.scorers import SCORERS, parsing
from llsflow.scorers.parsing import Parser, RegexTimeoutError, check_regex


@pytest.mark.parametrize(
    ("regex", "said"),
    [("(", "is not a regex"), ("[z-a](.)", "is not a regex"), ("(?P<a>", "is not a regex"), ("abc", "has no group")],
)
def test_a_regex_that_cannot_work_is_refused_with_the_fix(regex: str, said: str) -> None:
    (message,) = check_regex(regex)
    assert said in message
    assert "Answer: (.+)" in message
    assert repr(regex) in message


@pytest.mark.parametrize("regex", ["Answer: (.+)", r"(?i)x(?P<a>\d+)", r"\p{Han}(.)"])
def test_a_good_regex_passes(regex: str) -> None:
    assert check_regex(regex) == []


@pytest.mark.parametrize("scorer", [s for s in SCORERS if isinstance(SCORERS[s], parsing.RegexScorer)])
def test_default_regexes_pass_their_own_check(scorer: str) -> None:
    found = SCORERS[scorer]
    assert isinstance(found, parsing.RegexScorer)
    assert [message for regex in found.default_regexes for message in check_regex(regex)] == []


@pytest.mark.parametrize(
    ("regexes", "text", "answer"),
    [
        (["a=(.)"], "a=1", "1"),
        (["b=(.)", "a=(.)"], "a=1", "1"),
        (["b=(.)", "a=(.)"], "a=1 b=2", "2"),
        (["(x)?a=(?P<v>.)"], "a=1", "1"),  # the named group, though group 1 comes before it
        (["(x)?a=.", "a=(.)"], "a=1", "1"),  # a group that took no part leaves it to the next regex
        (["a=( . )"], "a= 1 ", "1"),
        (["b=(.)"], "a=1", None),
    ],
)
def test_the_first_regex_that_finds_an_answer_counts(regexes: list[str], text: str, answer: str | None) -> None:
    assert Parser(regexes)(text) == answer


def test_a_search_without_end_is_stopped_and_the_row_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "TIME_LIMIT_SECONDS", 0.05)
    evil = r"(a|a|aa)+$"
    with pytest.raises(RegexTimeoutError, match=r"took over 0\.05 s"):
        Parser([evil])("a" * 60 + "b")
    params = RegexParserScoringFnParams(parsing_regexes=[evil])
    row = {"expected_answer": "a", "generated_answer": "a" * 60 + "b"}
    for scorer in ("basic::regex_parser_multiple_choice_answer", "basic::regex_parser_math_response"):
        result = SCORERS[scorer].score(row, params)
        assert result["score"] is None
        assert "took over" in result["unscored"]
