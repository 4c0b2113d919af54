"""The registry: parameters that act on one call only, and refusals before the run."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from llsflow.errors import ConfigError
from llsflow.schema.scoring import (
    AggregationFunctionType,
    BasicScoringFnParams,
    LLMAsJudgeScoringFnParams,
    RegexParserScoringFnParams,
)
from llsflow.scorers import SCORERS, Params, check_params, score_rows

ROWS: list[dict[str, Any]] = [
    {"expected_answer": "A", "generated_answer": "A"},
    {"expected_answer": "A", "generated_answer": "Answer: A"},
]


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_says_what_it_does_and_gives_json(scorer: str) -> None:
    assert SCORERS[scorer].id == scorer
    assert SCORERS[scorer].__doc__
    result = score_rows(ROWS, scorer)
    assert len(result.score_rows) == 2
    assert json.loads(result.model_dump_json()) == result.model_dump()
    assert list(result.aggregated_results) == ["accuracy"]


@pytest.mark.parametrize("scorer", SCORERS)
def test_parameters_without_aggregations_keep_the_scorers_own(scorer: str) -> None:
    assert score_rows(ROWS, scorer, BasicScoringFnParams()) == score_rows(ROWS, scorer)


@pytest.mark.parametrize("scorer", SCORERS)
def test_one_calls_parameters_do_not_reach_the_next(scorer: str) -> None:
    before, definition = score_rows(ROWS, scorer), copy.deepcopy(vars(SCORERS[scorer]))
    functions = [AggregationFunctionType.MEDIAN, AggregationFunctionType.AVERAGE]
    result = score_rows(ROWS, scorer, BasicScoringFnParams(aggregation_functions=functions))
    assert list(result.aggregated_results) == ["median", "average"]
    assert score_rows(ROWS, scorer) == before
    assert vars(SCORERS[scorer]) == definition


@pytest.mark.parametrize(
    ("scorer", "params", "said"),
    [
        ("basic::equality", RegexParserScoringFnParams(), "allowed is basic"),
        ("basic::subset_of", LLMAsJudgeScoringFnParams(judge_model="m"), "it calls no judge"),
        (
            "basic::regex_parser_math_response",
            LLMAsJudgeScoringFnParams(judge_model="m"),
            "allowed is basic or regex_parser",
        ),
        (
            "basic::regex_parser_math_response",
            RegexParserScoringFnParams(parsing_regexes=["a(", "b"]),
            "'a(' is not a regex",
        ),
    ],
)
def test_parameters_that_cannot_act_are_refused(scorer: str, params: Params, said: str) -> None:
    assert said in "\n".join(check_params(scorer, params))
    with pytest.raises(ConfigError) as refused:
        score_rows(ROWS, scorer, params)
    assert said in str(refused.value)


def test_every_wrong_regex_is_told() -> None:
    params = RegexParserScoringFnParams(parsing_regexes=["a(", "b", "(c)"])
    assert len(check_params("basic::regex_parser_math_response", params)) == 2


def test_an_unknown_id_lists_the_known_ones() -> None:
    (message,) = check_params("basic::equalty")
    assert "did you mean 'basic::equality'?" in message
    assert all(scorer in message for scorer in SCORERS)


def test_a_rows_weight_reaches_the_weighted_average() -> None:
    rows = [{**ROWS[0], "weight": 3}, ROWS[1]]
    params = BasicScoringFnParams(aggregation_functions=[AggregationFunctionType.WEIGHTED_AVERAGE])
    assert (
        score_rows(rows, "basic::equality", params).aggregated_results["weighted_average"]["weighted_average"] == 0.75
    )
