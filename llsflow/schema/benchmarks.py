"""Benchmarks: rows, scoring functions and the candidate that answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llsflow.schema.agents import AgentConfig
from llsflow.schema.base import Identifier, PositiveInt, Record, Text
from llsflow.schema.inference import ResponseFormat
from llsflow.schema.sampling import SamplingParams
from llsflow.schema.scoring import ScoringFnParams


class SystemMessage(Record):
    """Instructions for the model."""

    role: Literal["system"] = "system"
    content: Text


class ModelCandidate(Record):
    """A model that answers the rows."""

    type: Literal["model"] = "model"
    model: Identifier
    """The experiment's model_id; after training the checkpoint is evaluated beside it."""
    sampling_params: SamplingParams
    system_message: SystemMessage | None = None
    """Put before every row's messages."""


class RerankCandidate(Record):
    """A model that puts the items of every row in the order of their relevance to the row's query."""

    type: Literal["rerank"] = "rerank"
    model: Identifier
    """The experiment's model_id, of model_type rerank."""
    max_num_results: PositiveInt | None = 10
    """The first so many of the order, which are scored; null: all."""


class AgentCandidate(Record):
    """An agent that answers the rows, each in a session of its own."""

    type: Literal["agent"] = "agent"
    config: AgentConfig
    """Its model is the experiment's model_id; after training the checkpoint is evaluated beside it."""


Candidate = ModelCandidate | RerankCandidate | AgentCandidate


def candidate_model(candidate: Candidate) -> str:
    """Return the name of the model that answers."""
    return candidate.config.model if isinstance(candidate, AgentCandidate) else candidate.model


def with_model(candidate: Candidate, model_id: str) -> Candidate:
    """Return a candidate whose model has another name."""
    if isinstance(candidate, AgentCandidate):
        return candidate.model_copy(update={"config": candidate.config.model_copy(update={"model": model_id})})
    return candidate.model_copy(update={"model": model_id})


class BenchmarkConfig(Record):
    """The candidate, and how its answers are scored."""

    eval_candidate: Annotated[Candidate, Field(discriminator="type")]
    scoring_params: dict[str, ScoringFnParams] = {}
    """By scoring function id; a function that is not named takes its own defaults."""
    num_examples: PositiveInt | None = None
    """The first so many rows; null: all."""


CHAMPION = "champion"
"""MLflow's alias of the last version that passed a gate, and the baseline of that name."""


class Gate(Record):
    """What a model must not fall below: the baseline, on the same rows."""

    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """How much worse it may be: the run fails where the difference's whole 95 % interval lies below minus this."""
    scoring_functions: list[Text] = []
    """Those that count; empty: all of the benchmark."""


class ExperimentBenchmark(Record):
    """A benchmark of the catalogue: `conf/benchmark/<benchmark_id>.yaml`."""

    benchmark_id: Identifier
    dataset_id: Identifier
    """Data set of the rows: a name in conf/dataset, or `<dataset_id>:held_out`."""
    scoring_functions: Annotated[list[Text], Field(min_length=1)]
    """Scoring function ids, for example basic::equality."""
    metadata: dict[str, Any] = {}
    benchmark_config: BenchmarkConfig
    response_format: ResponseFormat | None = None
    """What every answer keeps to: a JSON schema, or a grammar; null: anything."""
    repeats: PositiveInt = 1
    """How often every row is answered, each time from other seeds: the spread of the scores is sampling's noise."""
    baseline: Text | None = None
    """The model to compare with on the same rows: a name of conf/model or a checkpoint, a folder, a hub id, or
    `champion`, the last that passed the gate; null: the model that training begins with."""
    gate: Gate | None = None
    """Fails the run when the model is worse than the baseline. A trained one that passed gets MLflow's alias
    `champion`."""
    batch_size: PositiveInt = 64
    """Rows that are generated together, or items that are ranked together; changes the speed, not the answers. An
    endpoint has at_once instead."""


class Benchmark(Record):
    """A benchmark as the API shows it."""

    identifier: str
    provider_id: str
    """llsflow: registered; conf: a file of conf/benchmark, which cannot be unregistered."""
    provider_resource_id: str | None = None
    type: Literal["benchmark"] = "benchmark"
    dataset_id: str
    scoring_functions: list[str]
    metadata: dict[str, Any] = {}


class RegisterBenchmarkRequest(Record):
    """What `POST /v1alpha/eval/benchmarks` takes."""

    benchmark_id: Identifier
    dataset_id: Identifier
    scoring_functions: Annotated[list[Text], Field(min_length=1)]
    provider_benchmark_id: Text | None = None
    """The benchmark_id, where it is given."""
    provider_id: Text | None = None
    """llsflow, where it is given."""
    metadata: dict[str, Any] | None = None


class ListBenchmarksResponse(Record):
    """Every benchmark."""

    data: list[Benchmark]


class EvaluateRowsRequest(Record):
    """What `POST /v1alpha/eval/benchmarks/{benchmark_id}/evaluations` takes."""

    benchmark_config: BenchmarkConfig
    input_rows: Annotated[list[dict[str, Any]], Field(min_length=1)]
    scoring_functions: Annotated[list[Text], Field(min_length=1)]


class RunEvalRequest(Record):
    """What `POST /v1alpha/eval/benchmarks/{benchmark_id}/jobs` takes."""

    benchmark_config: BenchmarkConfig
