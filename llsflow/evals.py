"""Rows -> conversations -> generations -> scores -> EvaluateResponse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llsflow.data import evaluation_row
from llsflow.data.conversation import Conversation, Message
from llsflow.errors import DataError, Mistake
from llsflow.schema.experiment import Loc
from llsflow.schema.scoring import EvaluateResponse, ScoringFnParams, ScoringResult
from llsflow.scorers import EXPECTED, Scorer, check_params, find_scorer, score_rows

Row = Mapping[str, Any]
Generate = Callable[[list[Conversation]], Sequence[str | Mapping[str, Any]]]
"""n conversations -> n generations in the same order: a text, or a record with `generated_answer` and more."""
Complete = Callable[[Conversation, int], str]
"""A conversation and its row's place, from 0 -> the answer; ValueError: this row cannot be answered, and why."""

_MISTAKES_TOLD = 20


@dataclass(frozen=True)
class Question:
    """What one row asks of the model, and the answer that counts."""

    conversation: Conversation
    expected: str | None
    """null: the row has none, or cannot be used."""
    weight: float | None = None
    """How often the row counts in a weighted average; null: once."""
    columns: Row = field(default_factory=dict)
    """The row's own columns that scoring functions read."""


def questions(
    rows: Sequence[Row],
    scoring_functions: Sequence[str] = (),
    *,
    system_message: str | None = None,
    num_examples: int | None = None,
) -> list[Question]:
    """Return what the first `num_examples` rows ask; the system message stands before each row's own messages.

    Raises:
        DataError: no rows, or rows that cannot be used or lack a column that a scoring function needs: each with its
            number, counted from 1.
        LookupError: a scoring function is unknown.
    """
    asked, mistakes = [], []
    scorers = [find_scorer(name) for name in scoring_functions]
    for number, row in enumerate(rows[:num_examples], start=1):
        try:
            asked.append(_question(row, scorers, system_message))
        except ValueError as error:
            mistakes.append(Mistake(f"evaluation row {number}", str(error)))
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
    params = scoring_params or {}
    for scorer_id in scoring_functions:
        score_rows([], scorer_id, params.get(scorer_id))  # a wrong name must not cost hours of generation
    asked = questions(rows, scoring_functions, system_message=system_message, num_examples=num_examples)
    generations = [_generation(answer) for answer in generate([q.conversation for q in asked])]
    return EvaluateResponse(
        generations=generations, scores=score_generations(asked, generations, scoring_functions, params)
    )


def evaluate_each(
    rows: Sequence[Row],
    complete: Complete,
    scoring_functions: Sequence[str],
    *,
    scoring_params: Mapping[str, ScoringFnParams] | None = None,
    system_message: str | None = None,
    concurrency: int = 8,
) -> EvaluateResponse:
    """Return answers and scores of rows that are answered each by itself, `concurrency` at a time.

    A row that cannot be used, or that `complete` refuses with a ValueError, is told in its place and sinks no other:
    its generation is `{"generated_answer": null, "error": …}`, its scores are null.

    Raises:
        DataError: there are no rows.
        ConfigError: a scoring function is unknown or its parameters are not for it; nothing was generated.
        LlsflowError: whatever else `complete` raised, for example UnavailableError; rows not begun are not asked.
    """
    if not rows:
        raise DataError([Mistake("input_rows", "found no rows, needs at least one")])
    params = scoring_params or {}
    for scorer_id in scoring_functions:
        score_rows([], scorer_id, params.get(scorer_id))  # a wrong name must not cost the generation
    scorers = [find_scorer(name) for name in scoring_functions]
    asked: list[Question] = []
    generations: list[dict[str, Any]] = []
    for question, answer in _answers(rows, lambda row: _question(row, scorers, system_message), complete, concurrency):
        asked.append(question or Question([], None))
        generations.append(
            {"generated_answer": None, "error": str(answer)}
            if isinstance(answer, ValueError)
            else {"generated_answer": answer}
        )
    scores = score_generations(asked, generations, scoring_functions, params)
    return EvaluateResponse(
        generations=generations, scores={name: _with_reasons(scored, generations) for name, scored in scores.items()}
    )


def _answers(
    rows: Sequence[Row], ask: Callable[[Row], Question], complete: Complete, concurrency: int
) -> list[tuple[Question | None, str | ValueError]]:
    """Return what each row asks (None: it cannot be used), and the answer or why there is none."""
    from concurrent.futures import ThreadPoolExecutor

    def answer(index: int) -> tuple[Question | None, str | ValueError]:
        question = None
        try:
            question = ask(rows[index])
            return question, complete(question.conversation, index)
        except ValueError as error:
            return question, error

    with ThreadPoolExecutor(max(1, min(concurrency, len(rows))), thread_name_prefix="evaluate") as pool:
        futures = [pool.submit(answer, index) for index in range(len(rows))]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _with_reasons(scored: ScoringResult, generations: Sequence[Mapping[str, Any]]) -> ScoringResult:
    """Return the scores, those of rows without an answer with the reason that their generation tells."""
    rows = [
        {**row, "unscored": generation["error"]} if "error" in generation else row
        for row, generation in zip(scored.score_rows, generations, strict=True)
    ]
    return ScoringResult(score_rows=rows, aggregated_results=scored.aggregated_results)


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
        row = {
            **question.columns,
            "expected_answer": question.expected,
            "generated_answer": generation["generated_answer"],
        }
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


def check_scorers(names: Sequence[str], params: Mapping[str, ScoringFnParams]) -> list[tuple[Loc, str]]:
    """Return the place below a benchmark, and the sentence, of each mistake in scoring functions and parameters."""
    mistakes: list[tuple[Loc, str]] = []
    for number, scorer_id in enumerate(names):
        loc: Loc = ("scoring_functions", number)
        mistakes += [(loc, message) for message in check_params(scorer_id)]
        if scorer_id in names[:number]:
            mistakes.append((loc, f"{scorer_id!r} stands here twice: remove one"))
    for scorer_id, given in params.items():
        loc = ("benchmark_config", "scoring_params", scorer_id)
        if scorer_id not in names:
            message = f"parameters for {scorer_id!r}, which is not in scoring_functions: allowed are {', '.join(names)}"
            mistakes.append((loc, message))
        elif not check_params(scorer_id):
            mistakes += [(loc, message) for message in check_params(scorer_id, given)]
    return mistakes


def check_columns(row: Row, scoring_functions: Sequence[str]) -> None:
    """Refuse a row that lacks a column which a scoring function needs.

    Raises:
        ValueError: the row cannot be used, and why.
        LookupError: a scoring function is unknown.
    """
    _question(row, [find_scorer(name) for name in scoring_functions], None)


def _question(row: Row, scorers: Sequence[Scorer], system_message: str | None) -> Question:
    before: Conversation = [] if system_message is None else [Message(role="system", content=system_message)]
    conversation, expected = evaluation_row(row)
    read = {column for scorer in scorers for column in (*scorer.columns, *scorer.optional_columns)}
    columns = {column: row[column] for column in read if column != EXPECTED and column in row}
    whole = {**columns, EXPECTED: expected}
    lacking = [f"{scorer.id} needs {_named(lacks)}" for scorer in scorers if (lacks := scorer.lacks(whole))]
    if lacking:
        raise ValueError(f"columns are {', '.join(map(str, row))}: {'; '.join(lacking)}: absent or null here")
    return Question([*before, *conversation], expected, row.get("weight"), columns)


def _named(columns: Sequence[str]) -> str:
    # rows have it under several names, and each format of rows one
    return ", ".join("an expected answer (column answer)" if name == EXPECTED else name for name in columns)


def _generation(answer: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"generated_answer": answer} if isinstance(answer, str) else dict(answer)
