"""Rows that are answered and scored while the caller waits, through the inference engine or an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llsflow.data.conversation import Conversation
from llsflow.errors import ConfigError, Mistake
from llsflow.evals import check_scorers, evaluate_each
from llsflow.jobs.requests import Names, known_model
from llsflow.models.remote import RemoteModel
from llsflow.schema.benchmarks import EvaluateRowsRequest, ModelCandidate
from llsflow.schema.models import ModelConfig
from llsflow.schema.scoring import EvaluateResponse, LLMAsJudgeScoringFnParams
from llsflow.steps.judging import conversation_of, sampling_of_try, text_of

AT_ONCE = 32
"""Rows that the engine is asked at the same time: what waits together is generated together."""


def evaluate_rows(request: EvaluateRowsRequest, names: Names, engine_url: Callable[[], str]) -> EvaluateResponse:
    """Return the candidate's answers to the rows, and their scores.

    Raises:
        ConfigError: scoring functions or parameters that cannot be used.
        NotFoundError: the candidate's or a judge's model is not there.
        UnavailableError: the engine or an endpoint does not answer.
    """
    config = request.benchmark_config
    candidate = config.eval_candidate
    assert isinstance(candidate, ModelCandidate)  # noqa: S101 - the schema refused agents
    mistakes = [
        Mistake(".".join(map(str, place)), message)
        for place, message in check_scorers(request.scoring_functions, config.scoring_params)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    given = config.scoring_params.values()
    judges = {params.judge_model for params in given if isinstance(params, LLMAsJudgeScoringFnParams)}
    named = {name: known_model(name, names) for name in (candidate.model, *sorted(judges))}
    # asked last: what is wrong with the request is told while the engine starts, too
    url = engine_url() if any(model.endpoint is None for model in named.values()) else ""
    models = {name: _remote(model, url) for name, model in named.items()}

    def answer(asked: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        made = models[candidate.model].answer(asked, candidate.sampling_params, seed=0)
        return {place: generation.record() for place, generation in made.items()}

    def ask(judge: str, prompts: Mapping[int, str], number: int) -> dict[int, str | ValueError]:
        asked = {place: conversation_of(prompt) for place, prompt in prompts.items()}
        made = models[judge].answer(asked, sampling_of_try(number), seed=number)
        return {place: text_of(generation) for place, generation in made.items()}

    return evaluate_each(
        request.input_rows[: config.num_examples],
        answer,
        request.scoring_functions,
        scoring_params=config.scoring_params,
        system_message=candidate.system_message.content if candidate.system_message else None,
        ask=ask,
    )


def _remote(model: ModelConfig, engine_url: str) -> RemoteModel:
    if model.endpoint:
        return RemoteModel.of(model)
    return RemoteModel.of_engine(engine_url, model.model_id, at_once=AT_ONCE)
