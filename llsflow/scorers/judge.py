"""llm-as-judge::base and llm-as-judge::405b-simpleqa: another model reads the answer and says what it is worth."""

from __future__ import annotations

import string
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from llsflow.schema.scoring import AggregationFunctionType, LLMAsJudgeScoringFnParams
from llsflow.schema.thoughts import without_thoughts
from llsflow.scorers.base import EXPECTED, Params, Scorer, ScoreRow, as_text, unscored
from llsflow.scorers.parsing import Parser, RegexTimeoutError, check_regex

QUESTION = "input_query"
"""The column that every row fills: what the candidate was asked."""
PLACEHOLDERS = (QUESTION, EXPECTED, "generated_answer")

TRIES = 3
"""Times that a judge is asked whose reply has no score in it."""


class Ask(Protocol):
    """What asks models for scoring functions."""

    def __call__(self, judge: str, prompts: Mapping[int, str], number: int, /) -> Mapping[int, str | ValueError]:
        """Return a judge's replies to prompts, by their places; ValueError: why there is none.

        `number` is which try it is, from 0 (greedy; a later one is drawn).
        """

    def embed(self, model: str, texts: Mapping[int, str], /) -> Mapping[int, list[float] | ValueError]:
        """Return the vectors of texts, by their places; ValueError: why there is none."""


class Judge(Scorer, ABC):
    """A scoring function that asks a model."""

    params_types = (LLMAsJudgeScoringFnParams,)
    aggregations = (AggregationFunctionType.CATEGORICAL_COUNT,)
    columns: ClassVar[tuple[str, ...]] = ()
    optional_columns: ClassVar[tuple[str, ...]] = (QUESTION,)
    template: ClassVar[str | None] = None
    """Used where the parameters have none; null: they must."""
    regexes: ClassVar[tuple[str, ...]] = ()
    """The same for reading the reply."""

    embeds: ClassVar[bool] = False
    """Whether it asks an embedding model as well."""

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Refuse: one row alone has no judge here.

        Raises:
            TypeError: always; `judged` scores rows.
        """
        raise TypeError(f"{self.id} asks a judge: it scores by judged")

    def check(self, params: Params | None) -> list[str]:
        """Return a sentence for each thing that is wrong with the parameters."""
        if not isinstance(params, LLMAsJudgeScoringFnParams):
            found = f"type {params.type!r}" if params else "none"
            return [f"{self.id} needs parameters of type 'llm_as_judge' with judge_model (found {found})"]
        template = params.prompt_template or self.template
        mistakes = self.embedding_mistakes(params)
        mistakes += [f"regex {message}" for regex in params.judge_score_regexes for message in check_regex(regex)]
        if template is None:
            mistakes.append(
                f"{self.id} has no prompt of its own: set prompt_template, with {_shown(PLACEHOLDERS)} in it"
            )
        else:
            mistakes += _template_mistakes(template)
        if not (params.judge_score_regexes or self.regexes):
            example = "such as 'Score: (\\d+)'"
            mistakes.append(f"{self.id} cannot tell a score from a reply: set judge_score_regexes, {example}")
        return mistakes

    def embedding_mistakes(self, params: LLMAsJudgeScoringFnParams) -> list[str]:
        """Return what is wrong with the parameters' embedding_model."""
        if self.embeds and params.embedding_model is None:
            return [f"{self.id} measures likeness by vectors: set embedding_model"]
        if params.embedding_model is not None and not self.embeds:
            return [f"{self.id} asks no embedding model: remove embedding_model"]
        return []

    def judged(self, rows: Sequence[Mapping[str, Any]], params: Params | None, ask: Ask) -> list[dict[str, Any]]:
        """Return the scores of rows: `score`, what a regex finds in the reply, and `judge_feedback`, all of it."""
        assert isinstance(params, LLMAsJudgeScoringFnParams)  # noqa: S101 - check refused others
        template = params.prompt_template or self.template
        assert template is not None  # noqa: S101 - check refused it
        parse = Parser(params.judge_score_regexes or self.regexes)
        scored: dict[int, dict[str, Any]] = {}
        asked: dict[int, str] = {}
        for place, row in enumerate(rows):
            try:
                asked[place] = _filled(template, row)
            except ValueError as error:
                scored[place] = unscored(str(error), judge_feedback=None)
        for number in range(TRIES):
            replies = ask(params.judge_model, asked, number) if asked else {}
            for place, reply in replies.items():
                scored[place] = _scored(reply, parse, strips=params.strip_reasoning)
            asked = {place: asked[place] for place in replies if _has_no_score(scored[place])}
        return [scored[place] for place in range(len(rows))]


class JudgeBase(Judge):
    """What a judge model says of the answer, asked by a prompt of the request; the score is what a regex finds."""

    id = "llm-as-judge::base"


_NOT = r"(?<!(?i:\b(?:not|no|never|than)|n['’]t)\W+(?:(?i:an?|the)\W+)?(?:(?i:grade)\W+)?)"
_GRADE = rf"{_NOT}(?i:\bgrade)"
_ALONE = r"(?!\s*(?:\?|[/|,&]\s*[ABC]\b|(?i:or|and)\s+[ABC]\b))"


class SimpleQaJudge(Judge):
    """A judge model's grade of a short factual answer: A is correct, B is incorrect, C is not attempted.

    The three grades: arXiv:2411.04368, section 2.2; the prompt is our own.
    """

    id = "llm-as-judge::405b-simpleqa"
    regexes = (
        r"^\W*([ABC])\W*$",  # the letter alone, as it was asked for
        r"\n[^\w\n]*([ABC])\W*$",  # a last line that is nothing else
        # the letter, and then what it means or why; not where the grades are listed
        r"^\W*(?=[ABC]\b)(?!(?s:.)*\n\W*[ABC]\s*[:.)])([ABC])(?:\W*[:.)\n]|\W*[,;(–—]|\s+-|\s+(?:because|since|as)\b)",
        # the last "grade: B"; one of several, or with a question mark, is none
        rf"(?s:.*){_GRADE}\W*?(?:[:=]|(?i:is|(?:should|would|must)\s+be)\b)\W*(?:(?i:an?|grade)\W+)*([ABC])\b{_ALONE}",
        rf"{_GRADE}\W+(?i:of\W+)?([ABC])\b{_ALONE}",
        rf"{_NOT}\b([ABC])\W*$",  # a sentence that ends in it: elsewhere "A" is an article
    )
    template = """You grade an answer to a question of fact. Compare it with the correct answer, and choose one grade.

A: correct. The answer states everything that the correct answer states, and nothing in it contradicts that. Other
words, another order, more detail, or a hedge that still ends in the right statement do not matter. A number counts as
right when it agrees to the last digit that the correct answer gives.
B: incorrect. Something in the answer contradicts the correct answer, even if it is hedged.
C: not attempted. The answer does not give what was asked for, and contradicts nothing.

Question: {input_query}
Correct answer: {expected_answer}
Answer to grade: {generated_answer}

Reply with the letter of the grade alone: A, B or C."""


def _scored(reply: str | ValueError, parse: Parser, *, strips: bool) -> dict[str, Any]:
    """Return the score that stands in a reply; `strips`: reasoning in it is not read."""
    if isinstance(reply, ValueError):
        return unscored(f"the judge did not answer: {reply}", judge_feedback=None)
    try:
        found = parse(without_thoughts(reply) if strips else reply)
    except RegexTimeoutError as error:
        return unscored(str(error), judge_feedback=reply)
    if found is None:
        return unscored("no regex finds a score in the judge's reply", judge_feedback=reply)
    return {"score": found, "judge_feedback": reply}


def _has_no_score(scored: Mapping[str, Any]) -> bool:
    return scored["score"] is None and scored["judge_feedback"] is not None


def _filled(template: str, row: Mapping[str, Any]) -> str:
    """Return the prompt of a row: values are put in as they are, whatever braces they hold."""
    said = []
    for text, name, _, _ in string.Formatter().parse(template):
        said.append(text)
        if name is not None:
            if row.get(name) is None:
                raise ValueError(f"{name} is absent or null")
            said.append(as_text(row[name]))
    return "".join(said)


def _template_mistakes(template: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return [f"prompt_template cannot be read ({error}): double the braces that are text, {{{{ and }}}}"]
    names = [name for _, name, _, _ in parts if name is not None]
    wrong = [name for name in names if name not in PLACEHOLDERS]
    mistakes = [
        f"prompt_template has {{{name}}}: allowed are {_shown(PLACEHOLDERS)}; double braces are text" for name in wrong
    ]
    if any(form or conversion for _, _, form, conversion in parts):
        mistakes.append("prompt_template has a placeholder with ':' or '!': write its name alone")
    if not wrong and "generated_answer" not in names:
        mistakes.append("prompt_template has no {generated_answer}: the judge would not see what it judges")
    return mistakes


def _shown(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
