"""braintrust::*: the metrics of the library autoevals, whose questions any judge model answers.

Ids and columns as in Llama Stack (providers/inline/scoring/braintrust); prompts and arithmetic are those of autoevals
(its modules llm, ragas and string).
"""

from __future__ import annotations

import importlib.util
import json
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llsflow.schema.scoring import AggregationFunctionType, LLMAsJudgeScoringFnParams
from llsflow.scorers.base import EXPECTED, Params, as_text, generated_text, unscored
from llsflow.scorers.braintrust import likeness
from llsflow.scorers.braintrust.bridge import Client, UnusableReplyError, answered
from llsflow.scorers.judge import QUESTION, Ask, Judge

CONTEXT = "context"
"""The column with what the candidate was given to read: a text, or a list of texts."""


class Braintrust(Judge, ABC):
    """A metric of autoevals: a number from 0 to 1."""

    aggregations = (AggregationFunctionType.AVERAGE,)
    optional_columns = ()
    library = "autoevals"
    metric: ClassVar[str]
    """The class of autoevals."""
    options: ClassVar[Mapping[str, Any]] = {}
    """What the class is made with."""

    def check(self, params: Params | None) -> list[str]:
        """Return a sentence for each thing that is wrong with the parameters, or why it cannot be used here."""
        if not isinstance(params, LLMAsJudgeScoringFnParams):
            found = f"type {params.type!r}" if params else "none"
            return [f"{self.id} needs parameters of type 'llm_as_judge' with judge_model (found {found})"]
        mistakes = self.embedding_mistakes(params)
        if params.prompt_template is not None:
            mistakes.append(f"{self.id} asks with the prompts of autoevals: remove prompt_template")
        if params.judge_score_regexes:
            mistakes.append(f"{self.id} computes its score from the judge's JSON: remove judge_score_regexes")
        if importlib.util.find_spec("autoevals") is None:
            mistakes.append(f"{self.id} needs autoevals, which is not installed: pip install 'llsflow[braintrust]'")
        return mistakes

    def judged(self, rows: Sequence[Mapping[str, Any]], params: Params | None, ask: Ask) -> list[dict[str, Any]]:
        """Return the scores of rows: `score`, `judge_feedback`, the last reply, and `metadata`, as autoevals has it."""
        assert isinstance(params, LLMAsJudgeScoringFnParams)  # noqa: S101 - check refused others
        scored = answered([self._one(row) for row in rows], params, ask)
        return [scored[place] for place in range(len(rows))]

    async def _one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        client = Client()
        try:
            given = self._given(row)
        except ValueError as error:
            return unscored(str(error), judge_feedback=None)
        try:
            result = await self.metric_with(client).eval_async(**given)
        except UnusableReplyError as error:
            return unscored(str(error), judge_feedback=client.reply)
        except ZeroDivisionError:
            why = "there is nothing to count: the judge names no statements, or the context is empty"
            return unscored(why, judge_feedback=client.reply)
        except Exception as error:  # a row on which the library fails is not to sink the others
            return unscored(f"autoevals failed: {type(error).__name__}: {error}", judge_feedback=client.reply)
        # what has weight 0 was never measured: its 0 would read as a result
        metadata = {name: value for name, value in result.metadata.items() if not name.startswith("answer_similarity")}
        return {"score": float(result.score), "judge_feedback": client.reply, "metadata": metadata}

    def metric_with(self, client: Client) -> Any:
        """Return the metric of autoevals, which asks through the client."""
        import autoevals

        return getattr(autoevals, self.metric)(client=client.of_autoevals(), model="judge", **self.options)

    def _given(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return what autoevals takes of a row.

        Raises:
            ValueError: the row lacks a column, or its context is no text.
        """
        given = {"output": generated_text(row, *self.columns)}
        for column, name in ((QUESTION, "input"), (EXPECTED, "expected")):
            if column in self.columns:
                given[name] = as_text(row[column])
        if CONTEXT in self.columns:
            given["context"] = _context(row[CONTEXT])
        return given


class Factuality(Braintrust):
    """How the facts of the answer lie to those of the expected one: 1.0 the same, 0.6 more, 0.4 fewer, 0.0 against."""

    id = "braintrust::factuality"
    columns = (QUESTION, EXPECTED)
    metric = "Factuality"


class AnswerCorrectness(Braintrust):
    """The F1 of the answer's statements against those of the expected answer, without the similarity of embeddings.

    Upstream's number has that similarity in it, with weight 0.25; here its weight is 0.
    """

    id = "braintrust::answer-correctness"
    columns = (QUESTION, EXPECTED)
    metric = "AnswerCorrectness"
    options = {"factuality_weight": 1, "answer_similarity_weight": 0}


class AnswerRelevancy(Braintrust):
    """How near the question is to those that the answer would fit."""

    id = "braintrust::answer-relevancy"
    columns = (QUESTION, CONTEXT)
    metric = "AnswerRelevancy"
    embeds = True

    def metric_with(self, client: Client) -> Any:
        """Return the metric, which asks one thing after another."""
        return likeness.relevancy(client)


class AnswerSimilarity(Braintrust):
    """How near the answer is to the expected one: their vectors' cosine, from 0.7 on as 0 to 1; no judge is asked."""

    id = "braintrust::answer-similarity"
    columns = (EXPECTED,)
    metric = "EmbeddingSimilarity"
    embeds = True

    def metric_with(self, client: Client) -> Any:
        """Return the metric, which keeps no vectors for later."""
        return likeness.similarity(client)


class Faithfulness(Braintrust):
    """The share of the answer's statements that the context bears out."""

    id = "braintrust::faithfulness"
    columns = (QUESTION, CONTEXT)
    metric = "Faithfulness"


class ContextEntityRecall(Braintrust):
    """How many of the things that the expected answer names the context names too, as near as vectors tell."""

    id = "braintrust::context-entity-recall"
    columns = (EXPECTED, CONTEXT)
    metric = "ContextEntityRecall"
    embeds = True

    def metric_with(self, client: Client) -> Any:
        """Return the metric, which compares by vectors."""
        import autoevals

        return autoevals.ContextEntityRecall(
            client=client.of_autoevals(), model="judge", pairwise_scorer=likeness.similarity(client)
        )


class ContextPrecision(Braintrust):
    """1.0 when the context is of use for the expected answer; else 0.0."""

    id = "braintrust::context-precision"
    columns = (QUESTION, EXPECTED, CONTEXT)
    metric = "ContextPrecision"


class ContextRecall(Braintrust):
    """The share of the expected answer's statements that come from the context."""

    id = "braintrust::context-recall"
    columns = (QUESTION, EXPECTED, CONTEXT)
    metric = "ContextRecall"


class ContextRelevancy(Braintrust):
    """The share of the context, in characters, that the question needs."""

    id = "braintrust::context-relevancy"
    columns = (QUESTION, CONTEXT)
    metric = "ContextRelevancy"


METRICS: tuple[Judge, ...] = (
    *(Factuality(), AnswerCorrectness(), AnswerRelevancy(), AnswerSimilarity(), Faithfulness()),
    *(ContextEntityRecall(), ContextPrecision(), ContextRecall(), ContextRelevancy()),
)
"""All of them, those that are refused too."""


def _context(value: Any) -> str:
    """Return the context as one text.

    Raises:
        ValueError: it is neither a text nor a list of texts.
    """
    texts = _list_in(value) if isinstance(value, str) else value
    if isinstance(texts, str):
        return texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"context is {as_text(value)[:40]!r}: a text or a list of texts is needed")
    # as autoevals joins them, wherever it takes a list
    return "\n".join(texts)


def _list_in(text: str) -> str | list[str]:
    """Return the list of texts that a cell of a CSV file holds as JSON; any other text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) and all(isinstance(part, str) for part in value) else text
