"""Evaluation: what reaches the model, what comes back, and mistakes told before anything is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from llsflow.data.conversation import Conversation
from llsflow.errors import ConfigError, DataError, UnavailableError
from llsflow.evals import Generate, check_scorers, evaluate, evaluate_each, per_row_table, questions
from llsflow.schema.benchmarks import ExperimentBenchmark
from llsflow.schema.scoring import BasicScoringFnParams

U, A, S = ({"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "yo"), ("system", "be")))
ROWS: list[dict[str, Any]] = [
    {"question": "2 + 2?", "answer": "4"},
    {"messages": [S, U, A, U], "answer": "yo"},
    {"messages": [U, A]},
    {"prompt": "p", "completion": "c"},
]


class Scripted:
    """A model that answers from a list and remembers what it was asked."""

    def __init__(self, *answers: str | dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[Conversation] = []

    def __call__(self, conversations: list[Conversation]) -> Sequence[str | dict[str, Any]]:
        self.asked = conversations
        return self.answers


def never(conversations: list[Conversation]) -> list[str]:
    raise AssertionError(f"generated for {len(conversations)} rows before the mistake was told")


def test_every_form_of_row_keeps_its_turns_in_order() -> None:
    model = Scripted("4", "no", "yo", "c")
    response = evaluate(ROWS, model, ["basic::equality"])
    assert [conversation.messages for conversation in model.asked] == [
        [{"role": "user", "content": "2 + 2?"}],
        [S, U, A, U],
        [U],
        [{"role": "user", "content": "p"}],
    ]
    result = response.scores["basic::equality"]
    assert [row["score"] for row in result.score_rows] == [1.0, 0.0, 1.0, 1.0]
    inner = result.aggregated_results["accuracy"]
    assert (inner["accuracy"], inner["num_correct"], inner["num_total"]) == (0.75, 3.0, 4)
    assert response.generations == [{"generated_answer": text} for text in ("4", "no", "yo", "c")]


def test_the_system_message_stands_before_each_rows_own() -> None:
    asked = questions(ROWS, system_message="Short.")
    assert all(question.conversation.messages[0] == {"role": "system", "content": "Short."} for question in asked)
    assert asked[1].conversation.messages[1:] == [S, U, A, U]
    assert "messages" in ROWS[1]
    assert ROWS[1]["messages"][0] == S, "the row itself was changed"


def test_extra_keys_of_a_generation_are_kept() -> None:
    record = {"generated_answer": "4", "tokens": 1, "finish": "stop"}
    assert evaluate(ROWS[:1], Scripted(record), ["basic::equality"]).generations == [record]


def test_num_examples_takes_the_first_rows() -> None:
    assert len(evaluate(ROWS, Scripted("4", "yo"), ["basic::equality"], num_examples=2).generations) == 2


def test_rows_that_cannot_be_used_are_told_together_with_their_numbers() -> None:
    with pytest.raises(DataError) as told:
        evaluate([{"question": "?"}, ROWS[0], {"messages": []}], never, ["basic::equality"])
    assert [mistake.where for mistake in told.value.mistakes] == ["evaluation row 1", "evaluation row 3"]


def test_very_many_bad_rows_are_counted_not_listed() -> None:
    with pytest.raises(DataError) as told:
        questions([{}] * 1000)
    assert len(told.value.mistakes) == 1
    assert "(the same in 999 more rows: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …)" in str(told.value)


def test_no_rows_is_a_mistake() -> None:
    with pytest.raises(DataError, match="found no rows"):
        questions([])


def test_an_unknown_scorer_stops_before_generating() -> None:
    with pytest.raises(ConfigError, match="no scoring function"):
        evaluate(ROWS, never, ["basic::equality", "basic::nope"])


@pytest.mark.parametrize("model", [Scripted("4"), Scripted("4", "4", "4", "4", "4")])
def test_a_model_that_loses_rows_is_a_fault(model: Generate) -> None:
    with pytest.raises(ValueError, match="generations for 4 conversations"):
        evaluate(ROWS, model, ["basic::equality"])


def test_a_rows_weight_counts() -> None:
    benchmark = _benchmark(
        scoring_params={"basic::equality": {"type": "basic", "aggregation_functions": ["weighted_average"]}}
    )
    rows = [{**ROWS[0], "weight": 3}, ROWS[3]]
    response = evaluate(
        rows,
        Scripted("4", "wrong"),
        benchmark.scoring_functions,
        scoring_params=benchmark.benchmark_config.scoring_params,
    )
    (metric,) = response.scores["basic::equality"].aggregated_results.values()
    assert metric["weighted_average"] == 0.75


def test_a_bad_row_is_told_in_its_place_and_sinks_no_other() -> None:
    rows = [ROWS[0], {"question": "no answer"}, {**ROWS[0], "question": "refused"}, {**ROWS[3], "weight": 3}]
    asked: dict[int, Conversation] = {}

    def answer(conversations: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        asked.update(conversations)
        why = "its prompt of 900 tokens: the model's context is 512"
        return {
            place: {"generated_answer": None, "error": why}
            if "refused" in conversation.messages[-1]["content"]
            else {"generated_answer": "4"}
            for place, conversation in conversations.items()
        }

    params = BasicScoringFnParams.model_validate({"aggregation_functions": ["accuracy", "weighted_average"]})
    response = evaluate_each(
        rows,
        answer,
        ["basic::equality", "basic::subset_of"],
        scoring_params={"basic::equality": params},
        system_message="Short.",
    )
    assert sorted(asked) == [0, 2, 3]
    assert asked[0].messages == [{"role": "system", "content": "Short."}, {"role": "user", "content": "2 + 2?"}]
    first, unread, refused, last = response.generations
    assert (first, last) == ({"generated_answer": "4"}, {"generated_answer": "4"})
    assert (unread["generated_answer"], refused["generated_answer"]) == (None, None)
    assert refused["error"] == "its prompt of 900 tokens: the model's context is 512"
    for result in response.scores.values():
        assert [row["score"] for row in result.score_rows] == [1.0, None, None, 0.0]
        assert [row.get("unscored") for row in result.score_rows] == [None, unread["error"], refused["error"], None]
    equality = response.scores["basic::equality"].aggregated_results
    accuracy = equality["accuracy"]
    assert (accuracy["accuracy"], accuracy["num_total"], accuracy["num_unscored"]) == (0.5, 2, 2)
    assert equality["weighted_average"]["weighted_average"] == 0.25


def test_a_model_that_does_not_answer_fails_them_all() -> None:
    def answer(conversations: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        raise UnavailableError("the engine does not answer")

    with pytest.raises(UnavailableError):
        evaluate_each([ROWS[0]] * 5, answer, ["basic::equality"])


def test_each_refuses_before_it_asks() -> None:
    def complete(conversations: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        raise AssertionError("asked")

    with pytest.raises(DataError, match="needs at least one"):
        evaluate_each([], complete, ["basic::equality"])
    with pytest.raises(ConfigError, match="no scoring function"):
        evaluate_each(ROWS, complete, ["basic::nope"])


COMMA: dict[str, Any] = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def test_a_rows_own_columns_reach_the_scorer_that_reads_them() -> None:
    rows = [{"prompt": "No commas!", **COMMA, "weight": 7}, {**ROWS[0], **COMMA, "generated_answer": "not this"}]
    response = evaluate(rows, Scripted("one; two", "4, four"), ["basic::ifeval"])
    scored = response.scores["basic::ifeval"].score_rows
    assert [row["score"] for row in scored] == [1.0, 0.0]
    assert scored[0]["weight"] == 1.0, "the number of instructions, not the row's own weight"
    table = per_row_table(rows, ["P", "Q"], response)
    assert [(row["expected"], row["basic::ifeval"]) for row in table] == [(None, 1.0), ("4", 0.0)]


def test_a_row_that_lacks_a_column_is_told_before_anything_is_generated() -> None:
    rows = [{"prompt": "?", **COMMA}, {**ROWS[0], **COMMA}, {**ROWS[0], "kwargs": None}, {"question": "?", "id": 5}]
    with pytest.raises(DataError) as told:
        evaluate(rows, never, ["basic::equality", "basic::ifeval"])
    assert {mistake.where: mistake.message for mistake in told.value.mistakes} == {
        "evaluation row 1": "columns are prompt, instruction_id_list, kwargs: basic::equality needs an expected answer "
        "(column answer): absent or null here",
        "evaluation row 3": "columns are question, answer, kwargs: basic::ifeval needs instruction_id_list, kwargs: "
        "absent or null here",
        "evaluation row 4": "columns are question, id: basic::equality needs an expected answer (column answer); "
        "basic::ifeval needs instruction_id_list, kwargs: absent or null here",
    }
    assert evaluate(rows[:2], Scripted("a", "b"), ["basic::ifeval"]).generations


def test_a_row_that_lacks_a_column_is_told_in_its_place_and_never_asked() -> None:
    asked: list[int] = []

    def complete(conversations: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        asked.extend(conversations)
        return {place: {"generated_answer": "one, two"} for place in conversations}

    rows = [{"prompt": "?", **COMMA}, {"prompt": "?", "id": 1}, ROWS[0]]
    response = evaluate_each(rows, complete, ["basic::ifeval"])
    assert asked == [0]
    result = response.scores["basic::ifeval"]
    assert [row["score"] for row in result.score_rows] == [0.0, None, None]
    assert "basic::ifeval needs instruction_id_list, kwargs" in response.generations[1]["error"]
    assert result.score_rows[2]["unscored"] == response.generations[2]["error"]
    inner = result.aggregated_results["weighted_average"]
    assert (inner["weighted_average"], inner["num_unscored"]) == (0.0, 2)


def test_per_row_table() -> None:
    names = ["basic::equality", "basic::subset_of"]
    response = evaluate(ROWS[:2], Scripted("4", "oh yo"), names)
    assert per_row_table(ROWS[:2], ["Q", "R"], response) == [
        {
            "index": 0,
            "prompt": "Q",
            "expected": "4",
            "generated": "4",
            "basic::equality": 1.0,
            "basic::subset_of": 1.0,
        },
        {
            "index": 1,
            "prompt": "R",
            "expected": "yo",
            "generated": "oh yo",
            "basic::equality": 0.0,
            "basic::subset_of": 1.0,
        },
    ]


def _benchmark(functions: Sequence[str] = ("basic::equality",), **config: Any) -> ExperimentBenchmark:
    candidate = {"type": "model", "model": "m", "sampling_params": {}}
    return ExperimentBenchmark.model_validate(
        {
            "benchmark_id": "b",
            "dataset_id": "d",
            "scoring_functions": list(functions),
            "benchmark_config": {"eval_candidate": candidate, **config},
        }
    )


def _told(benchmark: ExperimentBenchmark) -> dict[tuple[str | int, ...], str]:
    return dict(check_scorers(benchmark.scoring_functions, benchmark.benchmark_config.scoring_params))


def test_a_good_benchmark_has_no_mistakes() -> None:
    params = {"basic::equality": {"type": "basic", "aggregation_functions": ["median"]}}
    assert _told(_benchmark(scoring_params=params)) == {}


def test_each_mistake_of_a_benchmark_has_its_place() -> None:
    benchmark = _benchmark(
        ["basic::equality", "basic::equalit", "basic::equality", "basic::regex_parser_math_response"],
        scoring_params={
            "basic::equality": {"type": "regex_parser"},
            "basic::subset_of": {"type": "basic"},
            "basic::regex_parser_math_response": {"type": "regex_parser", "parsing_regexes": ["("]},
        },
    )
    told = _told(benchmark)
    params = ("benchmark_config", "scoring_params")
    assert set(told) == {
        ("scoring_functions", 1),
        ("scoring_functions", 2),
        (*params, "basic::equality"),
        (*params, "basic::subset_of"),
        (*params, "basic::regex_parser_math_response"),
    }
    assert "did you mean 'basic::equality'" in told[("scoring_functions", 1)]
    assert "not in scoring_functions" in told[(*params, "basic::subset_of")]
