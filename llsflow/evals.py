"""Rows -> conversations -> generations -> scores -> EvaluateResponse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llsflow.data import evaluation_row
from llsflow.data.conversation import Conversation, Message, Messages, said
from llsflow.data.problems import grouped
from llsflow.errors import DataError, Mistake
from llsflow.schema.experiment import Loc
from llsflow.schema.scoring import AnswerCounts, EvaluateResponse, ScoringFnParams, ScoringResult
from llsflow.scorers import EXPECTED, Ask, Scorer, check_params, find_scorer, score_rows
from llsflow.scorers.judge import QUESTION

Row = Mapping[str, Any]
Generate = Callable[[list[Conversation]], Sequence[str | Mapping[str, Any]]]
"""n conversations -> n generations in the same order: a text, or a record with `generated_answer` and more."""
Answer = Callable[[Mapping[int, Conversation]], Mapping[int, Mapping[str, Any]]]
"""Conversations by their row's place, from 0 -> by place a record with `generated_answer`; null: with its `error`."""

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
    mistakes = grouped(mistakes, _MISTAKES_TOLD)
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
    ask: Ask | None = None,
) -> EvaluateResponse:
    """Return the generations for the rows, and their scores by every scoring function.

    `ask`: asks a judge; null: scoring functions that need one are refused.

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
    scores = score_generations(asked, generations, scoring_functions, params, ask)
    return EvaluateResponse(generations=generations, scores=scores, counts=counted(generations))


def evaluate_each(
    rows: Sequence[Row],
    answer: Answer,
    scoring_functions: Sequence[str],
    *,
    scoring_params: Mapping[str, ScoringFnParams] | None = None,
    system_message: str | None = None,
    ask: Ask | None = None,
) -> EvaluateResponse:
    """Return answers and scores of rows of which none is to sink another.

    One that cannot be used is not asked: its generation is `{"generated_answer": null, "error": …}`, its scores are
    null, as are those of one that was not answered.

    Raises:
        DataError: there are no rows.
        ConfigError: a scoring function is unknown or its parameters are not for it; nothing was generated.
        LlsflowError: whatever `answer` raised, for example UnavailableError.
    """
    if not rows:
        raise DataError([Mistake("input_rows", "found no rows, needs at least one")])
    params = scoring_params or {}
    for scorer_id in scoring_functions:
        score_rows([], scorer_id, params.get(scorer_id))  # a wrong name must not cost the generation
    scorers = [find_scorer(name) for name in scoring_functions]
    asked: dict[int, Question] = {}
    generations: dict[int, Mapping[str, Any]] = {}
    for place, row in enumerate(rows):
        try:
            asked[place] = _question(row, scorers, system_message)
        except ValueError as error:
            generations[place] = {"generated_answer": None, "error": str(error)}
    if asked:
        generations |= answer({place: question.conversation for place, question in asked.items()})
    in_order = [dict(generations[place]) for place in range(len(rows))]
    every = [asked.get(place, Question(Conversation([]), None)) for place in range(len(rows))]
    scores = score_generations(every, in_order, scoring_functions, params, ask)
    return EvaluateResponse(generations=in_order, scores=scores, counts=counted(in_order))


def counted(generations: Sequence[Mapping[str, Any]]) -> AnswerCounts:
    """Return how many generations are no answer, or one that was cut off."""
    filtered = [one for one in generations if one.get("finish_reason") == "content_filter"]
    answered = [one for one in generations if "error" not in one]
    return AnswerCounts(
        rows=len(generations),
        unanswered=len(generations) - len(answered) - sum("error" in one for one in filtered),
        filtered=len(filtered),
        cut_off=sum(one.get("finish_reason") == "length" for one in answered),
        empty=sum(not str(one["generated_answer"]).strip() for one in answered),
    )


def _with_reasons(scored: ScoringResult, generations: Sequence[Mapping[str, Any]]) -> ScoringResult:
    """Return the scores, those of rows without an answer with the reason that their generation tells."""
    if not any("error" in generation for generation in generations):
        return scored
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
    ask: Ask | None = None,
) -> dict[str, ScoringResult]:
    """Return the scores of generations that are there already, by scoring function id.

    Those of rows without an answer are null, with the reason that their generation tells.

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
    scores = {name: score_rows(rows, name, params.get(name), ask) for name in scoring_functions}
    return {name: _with_reasons(scored, generations) for name, scored in scores.items()}


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
            **({"error": generation["error"]} if "error" in generation else {}),
        }
        scores = {name: result.score_rows[index]["score"] for name, result in response.scores.items()}
        table.append({**record, **scores})
    return table


def check_scorers(
    names: Sequence[str], params: Mapping[str, ScoringFnParams], *, ranks: bool = False
) -> list[tuple[Loc, str]]:
    """Return the place below a benchmark, and the sentence, of each mistake in scoring functions and parameters.

    `ranks`: the candidate is a reranker.
    """
    mistakes: list[tuple[Loc, str]] = []
    usable = set()
    for number, scorer_id in enumerate(names):
        loc: Loc = ("scoring_functions", number)
        try:
            scorer = find_scorer(scorer_id)
        except LookupError as error:
            mistakes.append((loc, str(error.args[0])))
            continue
        if scorer.ranks is not ranks:
            made, needed = ("an order of items", "a text") if ranks else ("a text", "an order of items")
            mistakes.append((loc, f"{scorer_id!r} scores {needed}, and the candidate's answer is {made}"))
        if scorer_id in usable:
            mistakes.append((loc, f"{scorer_id!r} stands here twice: remove one"))
        elif scorer_id not in params:
            mistakes += [(loc, message) for message in check_params(scorer_id)]
        usable.add(scorer_id)
    for scorer_id, given in params.items():
        loc = ("benchmark_config", "scoring_params", scorer_id)
        if scorer_id in usable:
            mistakes += [(loc, message) for message in check_params(scorer_id, given)]
        elif scorer_id not in names:
            message = f"parameters for {scorer_id!r}, which is not in scoring_functions: allowed are {', '.join(names)}"
            mistakes.append((loc, message))
    return mistakes


def check_columns(row: Row, scoring_functions: Sequence[str]) -> None:
    """Refuse a row that lacks a column which a scoring function needs.

    Raises:
        ValueError: the row cannot be used, and why.
        LookupError: a scoring function is unknown.
    """
    _question(row, [find_scorer(name) for name in scoring_functions], None)


def _question(row: Row, scorers: Sequence[Scorer], system_message: str | None) -> Question:
    before: Messages = [] if system_message is None else [Message(role="system", content=system_message)]
    conversation, expected = evaluation_row(row)
    read = {column for scorer in scorers for column in (*scorer.columns, *scorer.optional_columns)}
    columns = {column: row[column] for column in read if column != EXPECTED and column in row}
    if QUESTION in read:
        columns[QUESTION] = row.get(QUESTION) or _asked(conversation.messages)
    whole = {**columns, EXPECTED: expected}
    lacking = [f"{scorer.id} needs {_named(lacks)}" for scorer in scorers if (lacks := scorer.lacks(whole))]
    if lacking:
        raise ValueError(f"columns are {', '.join(map(str, row))}: {'; '.join(lacking)}: absent or null here")
    return Question(conversation.after(before), expected, row.get("weight"), columns)


def _asked(messages: Messages) -> str:
    """Return what a conversation asks, for a judge to read: a single message as it is, of several who says what."""
    if len(messages) == 1:
        return said(messages[0])
    return "\n\n".join(f"{message['role']}: {said(message)}" for message in messages)


def _named(columns: Sequence[str]) -> str:
    # rows have it under several names, and each format of rows one
    return ", ".join("an expected answer (column answer)" if name == EXPECTED else name for name in columns)


def _generation(answer: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"generated_answer": answer} if isinstance(answer, str) else dict(answer)
