"""Scoring functions' parameters and results, as in the spec."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from llsflow.schema.base import Bool, Record, Text


class AggregationFunctionType(StrEnum):
    """How the rows' scores become one result."""

    AVERAGE = "average"
    WEIGHTED_AVERAGE = "weighted_average"
    MEDIAN = "median"
    CATEGORICAL_COUNT = "categorical_count"
    ACCURACY = "accuracy"


class BasicScoringFnParams(Record):
    """Parameters that every scoring function takes."""

    type: Literal["basic"] = "basic"
    aggregation_functions: list[AggregationFunctionType] = []
    """Empty: the scoring function's own."""
    strip_reasoning: Bool = True
    """Whether reasoning within an answer's text, as `<think>…</think>`, is taken out before it is scored. Not in the
    specification."""


class RegexParserScoringFnParams(Record):
    """Parameters of the scoring functions that read the answer with a regex."""

    type: Literal["regex_parser"] = "regex_parser"
    parsing_regexes: list[Text] = []
    """Tried in order; group 1 is the answer. Empty: the scoring function's own."""
    aggregation_functions: list[AggregationFunctionType] = []
    """Empty: the scoring function's own."""
    strip_reasoning: Bool = True
    """Whether reasoning within an answer's text, as `<think>…</think>`, is taken out before it is scored. Not in the
    specification."""


class LLMAsJudgeScoringFnParams(Record):
    """Parameters of a judge model."""

    type: Literal["llm_as_judge"] = "llm_as_judge"
    judge_model: Text
    prompt_template: Text | None = None
    judge_score_regexes: list[Text] = []
    aggregation_functions: list[AggregationFunctionType] = []
    embedding_model: Text | None = None
    """Of functions that measure likeness: an embedding model, of model_type rerank. Not in the specification."""
    strip_reasoning: Bool = True
    """Whether reasoning within an answer's text, as `<think>…</think>`, is taken out before it is scored. Not in the
    specification."""


ScoringFnParams = Annotated[
    LLMAsJudgeScoringFnParams | RegexParserScoringFnParams | BasicScoringFnParams,
    Field(discriminator="type"),
]


class ScoringResult(Record):
    """The scores of every row, and their aggregations."""

    score_rows: list[dict[str, Any]]
    """One per row, with `score` (a number, a text, or null where the row could not be scored)."""
    aggregated_results: dict[str, Any]
    """`{metric: {metric: value, …}}`."""


class AnswerCounts(Record):
    """What became of an evaluation's rows, where it is not simply an answer. Not in the specification."""

    rows: int
    unanswered: int = 0
    """The model or its server gave no answer; the row's generation has the reason."""
    filtered: int = 0
    """The server's content filter withheld the answer."""
    cut_off: int = 0
    """The answer ends at max_tokens, or where the context does."""
    empty: int = 0
    """The answer has no text."""

    @property
    def words(self) -> str:
        """Return the counts that are not 0; empty: every row has an answer."""
        names = {"unanswered": "unanswered", "filtered": "filtered", "cut_off": "cut off", "empty": "empty"}
        first, *others = [(getattr(self, name), word) for name, word in names.items() if getattr(self, name)] or [
            (0, "")
        ]
        more = "".join(f", {count:,} {word}" for count, word in others)
        return f"{first[0]:,} of {self.rows:,} rows {first[1]}{more}" if first[0] else ""


class EvaluateResponse(Record):
    """Generations and their scores."""

    generations: list[dict[str, Any]]
    """One per row, with `generated_answer`."""
    scores: dict[str, ScoringResult]
    """By scoring function id."""
    counts: AnswerCounts | None = None
    """How many rows have no answer, or one that was cut off."""


class ReturnType(Record):
    """What a score is."""

    type: Literal["number", "string"]


class ScoringFn(Record):
    """A scoring function as the API shows it."""

    identifier: str
    provider_id: str = "llsflow"
    provider_resource_id: str | None = None
    type: Literal["scoring_function"] = "scoring_function"
    description: str | None = None
    metadata: dict[str, Any] = {}
    return_type: ReturnType = ReturnType(type="number")
    params: ScoringFnParams | None = None
    """What it takes, with its defaults."""


class ListScoringFunctionsResponse(Record):
    """Every scoring function."""

    data: list[ScoringFn]
