"""Rows that are answered and scored while the caller waits, through the inference engine or an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llsflow.data.conversation import Conversation
from llsflow.data.ranked import ranked_row
from llsflow.errors import ConfigError, Mistake
from llsflow.evals import Answer, check_scorers, evaluate_each
from llsflow.jobs.requests import Names, agent_parts, known_model
from llsflow.models.remote import RemoteModel
from llsflow.rerank import as_answer, ranker_of
from llsflow.schema.benchmarks import (
    AgentCandidate,
    Candidate,
    EvaluateRowsRequest,
    ModelCandidate,
    RerankCandidate,
    candidate_model,
)
from llsflow.schema.experiment import shield_mistakes
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
    ranks = isinstance(candidate, RerankCandidate)
    mistakes = [
        Mistake(".".join(map(str, place)), message)
        for place, message in check_scorers(request.scoring_functions, config.scoring_params, ranks=ranks)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    given = [one for one in config.scoring_params.values() if isinstance(one, LLMAsJudgeScoringFnParams)]
    answering = candidate_model(candidate)
    needed = {answering: "rerank" if ranks else "llm"}
    needed |= {one.judge_model: "llm" for one in given}
    needed |= {one.embedding_model: "rerank" for one in given if one.embedding_model}
    asked_models = {name: known_model(name, names) for name in needed}
    _check_types(needed, asked_models)
    parts = agent_parts(candidate)
    mistakes = [
        Mistake(".".join(map(str, place)).removeprefix("benchmark."), message)
        for place, message in shield_mistakes(candidate, parts["shields"])
    ]
    if mistakes:
        raise ConfigError(mistakes)
    # asked last: what is wrong with the request is told while the engine starts, too
    here = any(not model.endpoint and not model.builtin for model in asked_models.values())
    url = engine_url() if here else ""
    rows = request.input_rows[: config.num_examples]

    system = candidate.system_message if isinstance(candidate, ModelCandidate) else None
    return evaluate_each(
        rows,
        _answer(candidate, asked_models[answering], rows, url, parts),
        request.scoring_functions,
        scoring_params=config.scoring_params,
        system_message=system.content if system else None,
        ask=_Asker(asked_models, url),
    )


def _answer(
    candidate: Candidate,
    model: ModelConfig,
    rows: Sequence[Mapping[str, Any]],
    url: str,
    parts: Mapping[str, Mapping[str, Any]],
) -> Answer:
    """Return what answers rows by their places."""

    def text(asked: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        assert isinstance(candidate, ModelCandidate)  # noqa: S101 - chosen below
        made = _remote(model, url).answer(asked, candidate.sampling_params, seed=0)
        return {place: generation.record() for place, generation in made.items()}

    def ranking(asked: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        assert isinstance(candidate, RerankCandidate)  # noqa: S101 - chosen below
        ranked = {place: ranked_row(rows[place]) for place in asked}
        made = ranker_of(model, lambda: url)({place: (one.query, one.items) for place, one in ranked.items()})
        return {
            place: {"generated_answer": None, "error": str(scores)}
            if isinstance(scores, ValueError)
            else {"generated_answer": as_answer(scores, candidate.max_num_results)}
            for place, scores in made.items()
        }

    def turns(asked: Mapping[int, Conversation]) -> dict[int, dict[str, Any]]:
        from llsflow.agents.candidate import AgentCandidateAnswers, named, no_judge
        from llsflow.agents.standalone import StandaloneAgent

        assert isinstance(candidate, AgentCandidate)  # noqa: S101 - chosen below
        remote = _remote(model, url)
        config = candidate.config.model_copy(update={"model": model.model_id})
        find_group, find_shield = (
            partial(named, parts["toolgroups"], "tool group"),
            partial(named, parts["shields"], "shield"),
        )
        agent = StandaloneAgent(config, model, remote, find_group, find_shield, no_judge)
        answers = AgentCandidateAnswers(agent, at_once=remote.endpoint.at_once, seed=0)
        return {place: generation.record() for place, generation in answers.answer(asked).items()}

    if isinstance(candidate, RerankCandidate):
        return ranking
    return turns if isinstance(candidate, AgentCandidate) else text


@dataclass(frozen=True)
class _Asker:
    """Asks the models of scoring functions."""

    models: Mapping[str, ModelConfig]
    url: str

    def __call__(self, judge: str, prompts: Mapping[int, str], number: int) -> dict[int, str | ValueError]:
        asked = {place: conversation_of(prompt) for place, prompt in prompts.items()}
        made = _remote(self.models[judge], self.url).answer(asked, sampling_of_try(number), seed=number)
        return {place: text_of(generation) for place, generation in made.items()}

    def embed(self, model: str, texts: Mapping[int, str]) -> Mapping[int, list[float] | ValueError]:
        """Return the vectors of texts, by their places."""
        return _remote(self.models[model], self.url).embed(texts)


def _check_types(needed: Mapping[str, str], models: Mapping[str, ModelConfig]) -> None:
    wrong = [name for name, kind in needed.items() if models[name].model_type != kind]
    if wrong:
        message = "; ".join(
            f"{name!r} has model_type {models[name].model_type}, needed is {needed[name]}" for name in wrong
        )
        raise ConfigError([Mistake("benchmark_config", message)])


def _remote(model: ModelConfig, engine_url: str) -> RemoteModel:
    if model.endpoint:
        return RemoteModel.of(model)
    return RemoteModel.of_engine(engine_url, model.model_id, at_once=AT_ONCE)
