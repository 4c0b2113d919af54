"""Metrics of autoevals that compare vectors, made to wait for one thing after another.

By themselves they keep every vector for the life of the process, and ask by tasks of a running event loop.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from llsflow.scorers.braintrust.bridge import Client, Text

if TYPE_CHECKING:
    from autoevals import AnswerRelevancy, EmbeddingSimilarity


def similarity(client: Client) -> EmbeddingSimilarity:
    """Return autoevals' likeness of two texts, over vectors of the embedding model."""
    import autoevals

    class Similarity(autoevals.EmbeddingSimilarity):  # type: ignore[misc, unused-ignore]
        """The same, asked through the bridge."""

        def _run_eval_async(self, output: str, expected: str | None = None, **_: Any) -> Any:
            return _Later(self, output, str(expected))

    return Similarity(client=client.of_autoevals())


class _Later:
    """A likeness that is worked out once it is awaited; one that never is leaves no warning."""

    def __init__(self, metric: Any, output: str, expected: str) -> None:
        self.metric, self.output, self.expected = metric, output, expected

    def __await__(self) -> Generator[Any, Any, Any]:
        from autoevals import Score

        metric = self.metric
        made = yield from Text(f"{metric.prefix}{self.output}").__await__()
        wanted = yield from Text(f"{metric.prefix}{self.expected}").__await__()
        likeness = metric.scale_score(metric.cosine_similarity(made, wanted), metric.expected_min)
        return Score(name=metric._name(), score=likeness)


def relevancy(client: Client) -> AnswerRelevancy:
    """Return autoevals' relevancy of an answer, over vectors of the embedding model."""
    import autoevals
    from autoevals.ragas import aload_function_call_request, extract_question_gen_request

    class Relevancy(autoevals.AnswerRelevancy):  # type: ignore[misc, unused-ignore]
        """The same, one question after another."""

        async def _run_eval_async(
            self, output: str, expected: str | None = None, input: str = "", context: str = "", **_: Any
        ) -> Any:
            asked = extract_question_gen_request(answer=output, context=context, model=self.model, **self.extra_args)
            questions = [await aload_function_call_request(client=self.client, **asked) for _ in range(self.strictness)]
            likeness = [
                await similarity(client).eval_async(output=one["question"], expected=input) for one in questions
            ]
            return self._postprocess(questions, likeness)

    return Relevancy(client=client.of_autoevals(), model="judge")
