"""Judges: what they are asked, how their replies are read, and which are asked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from llsflow.errors import ConfigError
from llsflow.schema.scoring import LLMAsJudgeScoringFnParams
from llsflow.scorers import score_rows
from llsflow.scorers.judge import TRIES, SimpleQaJudge
from llsflow.scorers.parsing import Parser

ROWS: list[dict[str, Any]] = [
    {"input_query": "2 + 2?", "expected_answer": "4", "generated_answer": "four"},
    {"input_query": "{x}?", "expected_answer": "{expected_answer}", "generated_answer": "{input_query} }{"},
]


def params(**changes: Any) -> LLMAsJudgeScoringFnParams:
    given = {
        "judge_model": "wise",
        "prompt_template": "{{Q}} {input_query} | {expected_answer} | {generated_answer}",
        "judge_score_regexes": [r"exactly (\d)", r"(\d)"],
    }
    return LLMAsJudgeScoringFnParams.model_validate({**given, **changes})


class Wise:
    """A judge that says what it is told to, and keeps what it was asked."""

    def __init__(self, *replies: Any) -> None:
        self.replies = replies
        self.asked: list[tuple[str, dict[int, str], int]] = []

    def __call__(self, model: str, prompts: Mapping[int, str], number: int) -> dict[int, Any]:
        self.asked.append((model, dict(prompts), number))
        return {place: self.replies[place] for place in prompts}

    def embed(self, model: str, texts: Mapping[int, str]) -> dict[int, Any]:
        raise AssertionError("no judge asks for vectors")


def test_values_are_put_in_as_they_are() -> None:
    judge = Wise("1", "2")
    score_rows(ROWS, "llm-as-judge::base", params(), judge)
    assert judge.asked == [
        ("wise", {0: "{Q} 2 + 2? | 4 | four", 1: "{Q} {x}? | {expected_answer} | {input_query} }{"}, 0)
    ]


def test_the_first_regex_that_finds_something_counts() -> None:
    result = score_rows(ROWS, "llm-as-judge::base", params(), Wise("5, or exactly 6", "7"))
    assert [row["score"] for row in result.score_rows] == ["6", "7"]
    assert [row["judge_feedback"] for row in result.score_rows] == ["5, or exactly 6", "7"]
    assert result.aggregated_results["categorical_count"]["categorical_count"] == {"6": 1, "7": 1}


def test_a_reply_without_a_score_is_asked_for_again_and_then_shown() -> None:
    judge = Wise("no number", "7")
    result = score_rows(ROWS, "llm-as-judge::base", params(aggregation_functions=["average"]), judge)
    assert [(list(prompts), number) for _, prompts, number in judge.asked] == [([0, 1], 0), ([0], 1), ([0], 2)]
    assert len(judge.asked) == TRIES
    assert result.score_rows[0]["score"] is None
    assert result.score_rows[0]["judge_feedback"] == "no number"
    average = result.aggregated_results["average"]
    assert (average["average"], average["num_unscored"]) == (7.0, 1)


def test_a_judge_that_fails_for_a_row_is_not_asked_again_for_it() -> None:
    judge = Wise(ValueError("blocked"), "7")
    result = score_rows(ROWS, "llm-as-judge::base", params(), judge)
    assert result.score_rows[0]["unscored"] == "the judge did not answer: blocked"
    assert len(judge.asked) == 1


def test_a_row_that_lacks_what_the_prompt_needs_is_not_asked() -> None:
    judge = Wise("1")
    rows = [ROWS[0], {"input_query": "x", "expected_answer": None, "generated_answer": "y"}]
    result = score_rows(rows, "llm-as-judge::base", params(), judge)
    assert list(judge.asked[0][1]) == [0]
    assert result.score_rows[1]["unscored"] == "expected_answer is absent or null"
    without = params(prompt_template="{generated_answer}")
    assert score_rows(rows, "llm-as-judge::base", without, Wise("1", "2")).score_rows[1]["score"] == "2"


def test_simpleqa_grades_by_its_own_prompt() -> None:
    judge = Wise("A", "The grade: B.")
    own = LLMAsJudgeScoringFnParams(judge_model="wise")
    result = score_rows(ROWS, "llm-as-judge::405b-simpleqa", own, judge)
    assert [row["score"] for row in result.score_rows] == ["A", "B"]
    prompt = judge.asked[0][1][0]
    assert all(text in prompt for text in ("Question: 2 + 2?", "Correct answer: 4", "Answer to grade: four"))


def test_where_no_judge_can_be_asked_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="no judge can be asked here"):
        score_rows(ROWS, "llm-as-judge::base", params())
    with pytest.raises(ConfigError, match="needs parameters of type 'llm_as_judge'"):
        score_rows(ROWS, "llm-as-judge::base", None, Wise("1", "2"))


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("B", "B"),
        ("**C**", "C"),
        ("A.", "A"),
        ("B: incorrect", "B"),
        ("B (incorrect)", "B"),
        ("The grade is A, as both name Paris.", "A"),
        ("A correct answer would be X, so B", "B"),
        ("A correct answer would be Paris.", None),
        ("A: CORRECT\nB: INCORRECT\nC: NOT_ATTEMPTED\n\nB", "B"),
        ("A: CORRECT\nB: INCORRECT\nC: NOT_ATTEMPTED\n\nThe grade is B.", "B"),
        ("It is not grade A but grade B.", "B"),
        ("It is not grade A.", None),
        ("This isn't A", None),
        ("B because Grade A needs all facts", "B"),
        ("A, since both name Paris; grade B would need a mistake", "A"),
        ("The grade is A, as grade B needs a contradiction.", "A"),
        ("Grade: A? No, it contradicts. Grade: B", "B"),
        ("Grade: A, B or C? It contradicts, so grade B.", "B"),
        ("The grade is not A, it is B", "B"),
        ("**Grade:** C", "C"),
    ],
)
def test_a_grade_is_what_is_stated_as_one(reply: str, grade: str | None) -> None:
    parse = Parser(SimpleQaJudge.regexes)
    assert parse(reply) == grade


def test_a_judges_reasoning_is_not_read() -> None:
    reply = "<think>Grade: A? no, it contradicts.</think>\nB"
    own = LLMAsJudgeScoringFnParams(judge_model="wise")
    (result,) = score_rows(ROWS[:1], "llm-as-judge::405b-simpleqa", own, Wise(reply)).score_rows
    assert (result["score"], result["judge_feedback"]) == ("B", reply)
    scores = params(judge_score_regexes=[r"Score: (\d+)"])
    judge = Wise("<think>Perhaps Score: 9, but it errs</think>Score: 2", "<think>Score: 9")
    result, cut_off = score_rows(ROWS, "llm-as-judge::base", scores, judge).score_rows
    assert (result["score"], cut_off["score"]) == ("2", None)
    assert [list(prompts) for _, prompts, _ in judge.asked] == [[0, 1], [1], [1]], "no score: asked again"


def test_strip_reasoning_false_reads_a_judges_reply_as_it_is() -> None:
    kept = params(judge_score_regexes=[r"Score: (\d+)"], strip_reasoning=False)
    judge = Wise("<think>Score: 9</think>Score: 2")
    (result,) = score_rows(ROWS[:1], "llm-as-judge::base", kept, judge).score_rows
    assert result["score"] == "9"
