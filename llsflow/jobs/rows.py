"""Rows that are answered and scored while the caller waits, through the inference engine."""

from __future__ import annotations

from collections.abc import Callable

from llsflow.errors import ConfigError, Mistake
from llsflow.evals import check_scorers, evaluate_each
from llsflow.jobs.requests import Names, known_model
from llsflow.models import remote
from llsflow.schema.benchmarks import EvaluateRowsRequest, ModelCandidate
from llsflow.schema.scoring import EvaluateResponse

AT_ONCE = 32
"""Rows that the engine is asked at the same time: what waits together is generated together."""

TIMEOUT_SECONDS = 600.0
"""For one row."""


def evaluate_rows(request: EvaluateRowsRequest, names: Names, engine_url: Callable[[], str]) -> EvaluateResponse:
    """Return the candidate's answers to the rows, and their scores.

    Raises:
        ConfigError: scoring functions or parameters that cannot be used.
        NotFoundError: the candidate's model is not there.
        UnavailableError: the engine does not answer.
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
    model = known_model(candidate.model, names)
    url = engine_url()  # asked last: what is wrong with the request is told while the engine starts, too
    return evaluate_each(
        request.input_rows[: config.num_examples],
        lambda conversation, index: remote.chat(
            url,
            model.model_id,
            conversation,
            candidate.sampling_params,
            seed=index,
            timeout=TIMEOUT_SECONDS,
        ),
        request.scoring_functions,
        scoring_params=config.scoring_params,
        system_message=candidate.system_message.content if candidate.system_message else None,
        concurrency=AT_ONCE,
    )
