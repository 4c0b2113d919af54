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
from llsflow.scorers.judge import Judge

ALONE = [name for name, scorer in SCORERS.items() if not isinstance(scorer, Judge)]
"""Those that ask no judge."""
ROWS: list[dict[str, Any]] = [
    {"expected_answer": "A", "generated_answer": "A"},
    {"expected_answer": "A", "generated_answer": "Answer: A"},
]
_FUNCTION = {"name": "f", "parameters": {"type": "dict", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
ROWS_OF: dict[str, list[dict[str, Any]]] = {
    "basic::ifeval": [
        {
            "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
            "kwargs": [{}, {}],
            "generated_answer": text,
        }
        for text in ("<<a>> b", "a, b")
    ],
    **{
        name: [
            {"expected_answer": "[0, 1]", "generated_answer": json.dumps([{"index": place} for place in order])}
            for order in ([1, 0], [0, 1])
        ]
        for name in ("rerank::ndcg", "rerank::mrr")
    },
    "basic::docvqa": [{"expected_answer": '["A", "the b"]', "generated_answer": text} for text in ("B.", "c")],
    "basic::bfcl": [
        {"id": "simple_0", "function": [_FUNCTION], "ground_truth": [{"f": {"a": [1]}}], "generated_answer": text}
        for text in ("f(a=1)", "f(a=2)")
    ],
}
"""Two rows for each scoring function, of which it scores the first higher; ROWS where nothing is said."""


def rows_of(scorer: str) -> list[dict[str, Any]]:
    return ROWS_OF.get(scorer, ROWS)


@pytest.mark.parametrize("scorer", ALONE)
def test_every_scorer_says_what_it_does_and_gives_json(scorer: str) -> None:
    assert SCORERS[scorer].id == scorer
    assert SCORERS[scorer].__doc__
    result = score_rows(rows_of(scorer), scorer)
    assert len(result.score_rows) == 2
    assert json.loads(result.model_dump_json()) == result.model_dump()
    own = {"basic::ifeval": "weighted_average", "rerank::ndcg": "average", "rerank::mrr": "average"}
    assert list(result.aggregated_results) == [own.get(scorer, "accuracy")]
    assert all(row["score"] is not None for row in result.score_rows)


@pytest.mark.parametrize("scorer", ALONE)
def test_every_scorer_tells_the_columns_that_it_needs(scorer: str) -> None:
    good = rows_of(scorer)[0]
    assert SCORERS[scorer].lacks(good) == []
    for column in SCORERS[scorer].columns:
        for row in ({**good, column: None}, {key: value for key, value in good.items() if key != column}):
            assert SCORERS[scorer].lacks(row) == [column]
            result = SCORERS[scorer].score(row)
            assert result["score"] is None
            assert "absent or null" in result["unscored"]
    seen: set[str] = set()

    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

        def __getitem__(self, key: str) -> Any:
            seen.add(key)
            return super().__getitem__(key)

    SCORERS[scorer].score(Watched(good))
    read = {*SCORERS[scorer].columns, *SCORERS[scorer].optional_columns, "generated_answer"}
    assert seen == read, "a column that is not declared does not reach it from a benchmark's rows"


@pytest.mark.parametrize("scorer", ALONE)
def test_parameters_without_aggregations_keep_the_scorers_own(scorer: str) -> None:
    rows = rows_of(scorer)
    assert score_rows(rows, scorer, BasicScoringFnParams()) == score_rows(rows, scorer)


_DECLARED = ("aggregations", "columns", "optional_columns", "params_types", "default_regexes")


@pytest.mark.parametrize("scorer", ALONE)
def test_one_calls_parameters_do_not_reach_the_next(scorer: str) -> None:
    rows = rows_of(scorer)
    given = copy.deepcopy(rows)
    before, definition = score_rows(rows, scorer), copy.deepcopy(vars(SCORERS[scorer]))
    shared = copy.deepcopy({key: value for key, value in vars(type(SCORERS[scorer])).items() if key in _DECLARED})
    functions = [AggregationFunctionType.MEDIAN, AggregationFunctionType.AVERAGE]
    params = BasicScoringFnParams(aggregation_functions=functions)
    result = score_rows(rows, scorer, params)
    assert list(result.aggregated_results) == ["median", "average"]
    assert score_rows(rows, scorer) == before
    assert vars(SCORERS[scorer]) == definition
    assert {key: vars(type(SCORERS[scorer]))[key] for key in shared} == shared
    assert params.aggregation_functions == functions, "the request itself"
    assert rows == given, "the rows themselves"


@pytest.mark.parametrize(
    "scorer", [name for name in SCORERS if RegexParserScoringFnParams in SCORERS[name].params_types]
)
def test_one_calls_regexes_do_not_reach_the_next(scorer: str) -> None:
    rows = [{"expected_answer": "7", "generated_answer": "it is <7>, final answer is: $\\boxed{8}$, Answer: C"}]
    before = score_rows(rows, scorer)
    own = score_rows(rows, scorer, RegexParserScoringFnParams(parsing_regexes=["<(.+?)>"]))
    assert before.score_rows[0]["score"] != own.score_rows[0]["score"] == 1.0
    assert score_rows(rows, scorer) == before
    assert score_rows(rows, scorer, RegexParserScoringFnParams()) == before


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


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        ("<think>\nParis? No.\n</think>\n\nOslo", "Oslo"),
        ("it may be Paris\n</think>\nOslo", "Oslo"),
        ("<thinking>Paris</thinking>Oslo", "Oslo"),
        ("[THINK]Paris[/THINK] Oslo", "Oslo"),
        ("<think>Oslo, or Oslo", ""),
        ("a <think b", "a <think b"),
    ],
)
def test_reasoning_is_taken_out_before_any_function_scores(generated: str, answer: str) -> None:
    row = {"expected_answer": answer.strip(), "generated_answer": generated}
    (scored,) = score_rows([row], "basic::equality").score_rows
    assert scored["score"] == 1.0
    kept = BasicScoringFnParams(strip_reasoning=False)
    (scored,) = score_rows([{**row, "expected_answer": generated}], "basic::equality", kept).score_rows
    assert scored["score"] == 1.0


def test_a_row_on_which_a_function_fails_sinks_no_other() -> None:
    rows = [
        {"instruction_id_list": ["punctuation:no_comma", 3], "kwargs": [{}, {}], "generated_answer": "a"},
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "generated_answer": "a"},
    ]
    first, second = score_rows(rows, "basic::ifeval").score_rows
    assert (first["score"], second["score"]) == (None, 1.0)
    assert first["unscored"]
