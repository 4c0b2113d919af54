"""Rows -> conversations -> generations -> scores -> EvaluateResponse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.data import evaluation_row
from llsflow.data.conversation import Conversation, Message
from llsflow.errors import DataError, Mistake
from llsflow.schema.benchmarks import ExperimentBenchmark
from llsflow.schema.experiment import Loc
from llsflow.schema.scoring import EvaluateResponse, ScoringFnParams, ScoringResult
from llsflow.scorers import check_params, score_rows

Row = Mapping[str, Any]
Generate = Callable[[list[Conversation]], Sequence[str | Mapping[str, Any]]]
"""n conversations -> n generations in the same order: a text, or a record with `generated_answer` and more."""

_MISTAKES_TOLD = 20


@dataclass(frozen=True)
class Question:
    """What one row asks of the model, and the answer that counts."""

    conversation: Conversation
    expected: str
    weight: float | None = None
    """How often the row counts in a weighted average; null: once."""


def questions(
    rows: Sequence[Row], *, system_message: str | None = None, num_examples: int | None = None
) -> list[Question]:
    """Return what the first `num_examples` rows ask; the system message stands before each row's own messages.

    Raises:
        DataError: no rows, or rows that cannot be used: each with its number, counted from 1.
    """
    before: Conversation = [] if system_message is None else [Message(role="system", content=system_message)]
    asked, mistakes = [], []
    for number, row in enumerate(rows[:num_examples], start=1):
        try:
            conversation, expected = evaluation_row(row)
        except ValueError as error:
            mistakes.append(Mistake(f"evaluation row {number}", str(error)))
            continue
        asked.append(Question([*before, *conversation], expected, row.get("weight")))
    if len(mistakes) > _MISTAKES_TOLD:
        rest = Mistake("", f"and {len(mistakes) - _MISTAKES_TOLD} more rows that cannot be used")
        mistakes = [*mistakes[:_MISTAKES_TOLD], rest]
    if not mistakes and not asked:
        mistakes = [Mistake("evaluation", "found no rows, needs at least one: look at the benchmark's data set")]
    if mistakes:
        raise DataError(mistakes)
    return asked


def evaluate(
    rows: Sequence[Row],
    generate: Generate,
    scoring_functions: Sequence[str],
    *,
    scoring_params: Mapping[str, ScoringFnParams] | None = None,
    system_message: str | None = None,
    num_examples: int | None = None,
) -> EvaluateResponse:
    """Return the generations for the rows, and their scores by every scoring function.

    Raises:
        DataError: rows that cannot be used; nothing was generated.
        ConfigError: a scoring function is unknown or its parameters are not for it; nothing was generated.
        ValueError: `generate` did not return one generation for each conversation.
    """
    asked = questions(rows, system_message=system_message, num_examples=num_examples)
    params = scoring_params or {}
    for scorer_id in scoring_functions:
        score_rows([], scorer_id, params.get(scorer_id))  # a wrong name must not cost hours of generation
    generations = [_generation(answer) for answer in generate([q.conversation for q in asked])]
    return EvaluateResponse(
        generations=generations, scores=score_generations(asked, generations, scoring_functions, params)
    )


def score_generations(
    asked: Sequence[Question],
    generations: Sequence[Mapping[str, Any]],
    scoring_functions: Sequence[str],
    scoring_params: Mapping[str, ScoringFnParams] | None = None,
) -> dict[str, ScoringResult]:
    """Return the scores of generations that are there already, by scoring function id.

    Raises:
        ConfigError: a scoring function is unknown or its parameters are not for it.
        ValueError: not one generation for each question.
    """
    if len(asked) != len(generations):
        raise ValueError(f"{len(generations)} generations for {len(asked)} conversations")
    rows: list[dict[str, Any]] = []
    for question, generation in zip(asked, generations, strict=True):
        row = {"expected_answer": question.expected, "generated_answer": generation["generated_answer"]}
        rows.append(row if question.weight is None else {**row, "weight": question.weight})
    params = scoring_params or {}
    return {scorer_id: score_rows(rows, scorer_id, params.get(scorer_id)) for scorer_id in scoring_functions}


def per_row_table(rows: Sequence[Row], prompts: Sequence[str], response: EvaluateResponse) -> list[dict[str, Any]]:
    """Return one record for each row: index, prompt, expected, generated, and a column for each scoring function.

    rows, prompts: the n rows that were evaluated, and what each became for the model.
    """
    table = []
    for index, (row, prompt, generation) in enumerate(zip(rows, prompts, response.generations, strict=True)):
        record = {
            "index": index,
            "prompt": prompt,
            "expected": evaluation_row(row)[1],
            "generated": generation["generated_answer"],
        }
        scores = {name: result.score_rows[index]["score"] for name, result in response.scores.items()}
        table.append({**record, **scores})
    return table


def check_scorers(benchmark: ExperimentBenchmark) -> list[tuple[Loc, str]]:
    """Return the place and the sentence of each mistake in a benchmark's scoring functions and parameters."""
    mistakes: list[tuple[Loc, str]] = []
    names, params = benchmark.scoring_functions, benchmark.benchmark_config.scoring_params
    for number, scorer_id in enumerate(names):
        loc: Loc = ("benchmark", "scoring_functions", number)
        mistakes += [(loc, message) for message in check_params(scorer_id)]
        if scorer_id in names[:number]:
            mistakes.append((loc, f"{scorer_id!r} stands here twice: remove one"))
    for scorer_id, given in params.items():
        loc = ("benchmark", "benchmark_config", "scoring_params", scorer_id)
        if scorer_id not in names:
            message = f"parameters for {scorer_id!r}, which is not in scoring_functions: allowed are {', '.join(names)}"
            mistakes.append((loc, message))
        elif not check_params(scorer_id):
            mistakes += [(loc, message) for message in check_params(scorer_id, given)]
    return mistakes


def _generation(answer: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"generated_answer": answer} if isinstance(answer, str) else dict(answer)
