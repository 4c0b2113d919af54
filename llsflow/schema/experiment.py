"""The experiment: everything one run needs, and the mistakes that show only when its parts are seen together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from llsflow.schema.agents import AgentConfig
from llsflow.schema.base import Bool, Identifier, NonNegativeInt, Record, Text
from llsflow.schema.benchmarks import (
    CHAMPION,
    AgentCandidate,
    Candidate,
    ExperimentBenchmark,
    RerankCandidate,
    candidate_model,
)
from llsflow.schema.datasets import HELD_OUT, DatasetConfig, DatasetPurpose
from llsflow.schema.kinds import or_known
from llsflow.schema.models import ModelConfig
from llsflow.schema.scoring import LLMAsJudgeScoringFnParams
from llsflow.schema.shields import LlamaGuard, ShieldConfig
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.schema.training import Recipe, TrainerConfig

Loc = tuple[str | int, ...]


class TrackingConfig(Record):
    """Where the record of the run goes in MLflow."""

    experiment: Identifier = "llsflow"
    """MLflow experiment that the run appears under."""
    uri: Text | None = None
    """MLflow tracking URI; null: MLFLOW_TRACKING_URI, or SQLite under LLSFLOW_HOME."""
    register_model: Bool = True
    """Whether the trained checkpoint becomes a version in MLflow's model registry."""
    register_as: Identifier | None = None
    """Its name there; null: the experiment's."""


class Experiment(Record):
    """A complete choice of model, data, recipe and benchmark: what `llsflow run` runs."""

    name: Identifier
    """The experiment's name: its file under conf/experiment."""
    description: str = ""
    """One sentence for the run's page."""
    seed: NonNegativeInt = Field(default=0, le=2**31 - 1)
    """Seed of the new weights, the data order, dropout and sampling."""
    model: ModelConfig
    dataset: DatasetConfig | None = None
    """The training data set."""
    datasets: dict[str, DatasetConfig] = {}
    """The other data sets that recipe and benchmark name; filled from conf/dataset."""
    models: dict[str, ModelConfig] = {}
    """The other models, by the names that judges have in scoring_params; filled from conf/model."""
    agent: AgentConfig | None = None
    """The agent that a benchmark's candidate is, by `config: ${agent}`; null: none."""
    toolgroups: dict[str, ToolGroupConfig] = {}
    """The tool groups of an agent that is evaluated, by the names that it has for them; filled from conf/toolgroup."""
    shields: dict[str, ShieldConfig] = {}
    """The shields of an agent that is evaluated; filled from conf/shield."""
    recipe: Recipe | None = None
    """How to train; null: evaluate only."""
    benchmark: ExperimentBenchmark | None = None
    """What to evaluate on; null: train only."""
    trainer: TrainerConfig = TrainerConfig()
    tracking: TrackingConfig = TrackingConfig()

    def named_model(self, name: str) -> ModelConfig | None:
        """Return the model that a judge's name stands for; None: there is none."""
        return self.models.get(name) or (self.model if name == self.model.model_id else None)

    def catalogue(self) -> dict[str, DatasetConfig]:
        """Return the data sets of this experiment by dataset_id."""
        own = {self.dataset.dataset_id: self.dataset} if self.dataset else {}
        return {**self.datasets, **own}


def registered_name(experiment: Experiment) -> str | None:
    """Return the name that the trained checkpoint is registered under in MLflow; null: it is not."""
    tracking = experiment.tracking
    return (tracking.register_as or experiment.name) if tracking.register_model else None


def champion_name(experiment: Experiment) -> str:
    """Return the name in MLflow's model registry whose champion this experiment compares with."""
    return experiment.tracking.register_as or experiment.name


def asked_models(experiment: Experiment) -> Iterator[tuple[Loc, str, str]]:
    """Yield the place, the name and the model_type of every model that scoring functions ask."""
    params = experiment.benchmark.benchmark_config.scoring_params if experiment.benchmark else {}
    for scorer_id, given in params.items():
        if isinstance(given, LLMAsJudgeScoringFnParams):
            base: Loc = ("benchmark", "benchmark_config", "scoring_params", scorer_id)
            yield (*base, "judge_model"), given.judge_model, "llm"
            if given.embedding_model:
                yield (*base, "embedding_model"), given.embedding_model, "rerank"


def referenced_datasets(experiment: Experiment) -> Iterator[tuple[Loc, str]]:
    """Yield the place and the id of every data set that is named by id."""
    data = experiment.recipe.training_config.data_config if experiment.recipe else None
    if data:
        base: Loc = ("recipe", "training_config", "data_config")
        yield (*base, "dataset_id"), data.dataset_id
        if data.validation_dataset_id:
            yield (*base, "validation_dataset_id"), data.validation_dataset_id
    if experiment.benchmark:
        yield ("benchmark", "dataset_id"), experiment.benchmark.dataset_id


def cross_checks(experiment: Experiment) -> Iterator[tuple[Loc, str]]:
    """Yield the place and the sentence of every mistake between the parts of an experiment."""
    if experiment.recipe is None and experiment.benchmark is None:
        yield ("recipe",), "nothing to do: choose a recipe (recipe=sft_full) or a benchmark (benchmark=…)"
    if experiment.recipe:
        yield from _training_mistakes(experiment, experiment.recipe)
    for loc, dataset_id in referenced_datasets(experiment):
        yield from _dataset_mistakes(experiment, loc, dataset_id)
    for loc, name, model_type in asked_models(experiment):
        asked = experiment.named_model(name)
        if asked is None:
            known = ", ".join(sorted({*experiment.models, experiment.model.model_id}))
            yield loc, f"no model {name!r}; known here are {known}"
        elif asked.model_type != model_type:
            what = "ranks and writes no text" if model_type == "llm" else "writes text and makes no vectors"
            yield loc, f"{name!r} {what}: {loc[-1]} has model_type {model_type}"
    if experiment.benchmark:
        yield from _candidate_mistakes(experiment, experiment.benchmark)
        yield from _baseline_mistakes(experiment, experiment.benchmark)
        yield from _gate_mistakes(experiment, experiment.benchmark)


def _candidate_mistakes(experiment: Experiment, benchmark: ExperimentBenchmark) -> Iterator[tuple[Loc, str]]:
    candidate, model = benchmark.benchmark_config.eval_candidate, experiment.model
    loc: Loc = ("benchmark", "benchmark_config", "eval_candidate")
    if candidate_model(candidate) != model.model_id:
        found = f"{candidate_model(candidate)!r} is not this experiment's model"
        place = ("config", "model") if isinstance(candidate, AgentCandidate) else ("model",)
        yield (*loc, *place), f"{found}: allowed is {model.model_id!r}"
    if isinstance(candidate, AgentCandidate):
        yield from _agent_mistakes(candidate.config, benchmark)
        yield from shield_mistakes(candidate, experiment.shields)
    elif experiment.agent:
        yield ("agent",), "is not what the benchmark's candidate is: take a benchmark of type agent, or agent=null"
    ranks = isinstance(candidate, RerankCandidate)
    greedy = _is_greedy(candidate)
    if benchmark.repeats > 1 and greedy and not model.endpoint:
        yield (
            ("benchmark", "repeats"),
            "the answers would be the same each time: sample with top_p or top_k, or set it to 1",
        )
    if ranks is not (model.model_type == "rerank"):
        what, needed = ("ranks and writes no text", "rerank") if not ranks else ("writes text", "model")
        yield (*loc, "type"), f"{model.model_id!r} {what}: allowed is {needed!r}"
    if ranks and benchmark.response_format:
        yield ("benchmark", "response_format"), "a reranker writes nothing that could keep to it: set it to null"
    dataset = experiment.catalogue().get(benchmark.dataset_id.removesuffix(HELD_OUT))
    if dataset and ranks is not (dataset.purpose is DatasetPurpose.EVAL_RERANK):
        needed = f"purpose {DatasetPurpose.EVAL_RERANK}" if ranks else "eval/question-answer or eval/messages-answer"
        found = f"{benchmark.dataset_id!r} has purpose {dataset.purpose}"
        yield ("benchmark", "dataset_id"), f"{found}: a candidate of type {candidate.type} takes {needed}"


def _is_greedy(candidate: Candidate) -> bool:
    if isinstance(candidate, RerankCandidate):
        return True
    sampling = candidate.config.sampling_params if isinstance(candidate, AgentCandidate) else candidate.sampling_params
    return sampling is None or sampling.strategy.type == "greedy"


def _agent_mistakes(agent: AgentConfig, benchmark: ExperimentBenchmark) -> Iterator[tuple[Loc, str]]:
    loc: Loc = ("benchmark", "benchmark_config", "eval_candidate", "config")
    if agent.client_tools:
        yield (*loc, "client_tools"), "nobody runs them in an evaluation: take toolgroups, whose tools run here"
    if agent.enable_session_persistence:
        yield (*loc, "enable_session_persistence"), "sessions of an evaluation are not kept: set it to false"
    if benchmark.response_format:
        yield ("benchmark", "response_format"), "an agent has its own: write it in the candidate's config"


def shield_mistakes(candidate: Candidate, shields: Mapping[str, ShieldConfig]) -> Iterator[tuple[Loc, str]]:
    """Yield what of an agent's shields cannot be asked in an evaluation."""
    for loc, group, name in agent_names(candidate):
        if group == "shield" and name in shields and isinstance(shields[name].provider, LlamaGuard):
            yield loc, f"{name!r} asks a model, which an evaluation does not: take one of patterns or moderation"


def agent_names(candidate: Candidate) -> Iterator[tuple[Loc, str, str]]:
    """Yield the place, the group of conf and the name of each tool group and shield of an agent that is evaluated."""
    if not isinstance(candidate, AgentCandidate):
        return
    loc: Loc = ("benchmark", "benchmark_config", "eval_candidate", "config")
    for number, group in enumerate(candidate.config.toolgroups or ()):
        name = group if isinstance(group, str) else group.name
        yield (*loc, "toolgroups", number), "toolgroup", name
    for key in ("input_shields", "output_shields"):
        for number, name in enumerate(getattr(candidate.config, key) or ()):
            yield (*loc, key, number), "shield", name


def _baseline_mistakes(experiment: Experiment, benchmark: ExperimentBenchmark) -> Iterator[tuple[Loc, str]]:
    name = benchmark.baseline
    if name is None or name == CHAMPION:
        return
    loc: Loc = ("benchmark", "baseline")
    if experiment.recipe is None and name == experiment.model.model_id:
        yield loc, f"{name!r} is the model that it would be compared with: name another, or set it to null"
    known = experiment.named_model(name)
    if known is None:
        return  # a folder or a hub id
    if known.model_type != experiment.model.model_type:
        yield loc, f"{name!r} has model_type {known.model_type}: it must be {experiment.model.model_type} as well"
    if known.init and known is not experiment.model:
        yield loc, f"{name!r} has init: there is nothing to compare with before it is trained"


def _gate_mistakes(experiment: Experiment, benchmark: ExperimentBenchmark) -> Iterator[tuple[Loc, str]]:
    if benchmark.gate is None:
        return
    if experiment.recipe is None and benchmark.baseline is None:
        yield (
            ("benchmark", "gate"),
            "has nothing to compare with: choose a recipe or a benchmark.baseline, or set it to null",
        )
    for number, name in enumerate(benchmark.gate.scoring_functions):
        if name not in benchmark.scoring_functions:
            known = ", ".join(benchmark.scoring_functions)
            loc: Loc = ("benchmark", "gate", "scoring_functions", number)
            yield loc, f"{name!r} is not in the benchmark's scoring_functions: allowed are {known}"


def _training_mistakes(experiment: Experiment, recipe: Recipe) -> Iterator[tuple[Loc, str]]:
    training = recipe.training_config
    for field in ("data_config", "optimizer_config"):
        if getattr(training, field) is None:
            yield ("recipe", "training_config", field), "needed to train: it is null"
    for place, sentence in recipe.checks():
        yield ("recipe", *place), sentence
    yield from _device_mistakes(recipe, experiment.trainer)
    if experiment.model.model_type == "rerank":
        yield ("model", "model_type"), "rerankers are evaluated and not trained here: take recipe=null"
    if experiment.model.endpoint:
        yield (
            ("model", "endpoint"),
            "nothing is trained at an endpoint: take a model with path or init, or recipe=null",
        )


def _device_mistakes(recipe: Recipe, trainer: TrainerConfig) -> Iterator[tuple[Loc, str]]:
    if trainer.nodes > 1:
        yield ("trainer", "nodes"), "a run keeps its work and its stop on one machine: set it to 1, and trainer.devices"
    efficiency = recipe.training_config.efficiency_config
    for field in ("memory_efficient_fsdp_wrap", "fsdp_cpu_offload"):
        if efficiency and getattr(efficiency, field) and trainer.strategy != "fsdp":
            yield (
                ("recipe", "training_config", "efficiency_config", field),
                "is for weights that devices share out: set trainer.strategy=fsdp and trainer.devices, or false",
            )
    if trainer.strategy == "auto":
        return
    if trainer.devices == 1:
        yield ("trainer", "strategy"), f"{trainer.strategy} is for several devices: set trainer.devices, or auto"
    if trainer.strategy == "fsdp" and recipe.algorithm_config is not None:
        yield ("trainer", "strategy"), "fsdp shares out weights that learn, and adapters are small: take ddp"


def _dataset_mistakes(experiment: Experiment, loc: Loc, dataset_id: str) -> Iterator[tuple[Loc, str]]:
    catalogue = experiment.catalogue()
    base = dataset_id.removesuffix(HELD_OUT)
    dataset = catalogue.get(base)
    if dataset is None:
        yield loc, f"no data set {dataset_id!r}{or_known(dataset_id, sorted(catalogue))}"
        return
    if dataset_id.endswith(HELD_OUT) and not dataset.hold_out:
        yield loc, f"{base!r} holds no rows out: set hold_out on it, for example dataset.hold_out=0.05"
    training_data = loc[0] == "recipe"
    if training_data and dataset.purpose is not DatasetPurpose.POST_TRAINING_MESSAGES:
        yield loc, f"{base!r} has purpose {dataset.purpose}: training takes post-training/messages"
    if loc[0] == "benchmark" and not dataset_id.endswith(HELD_OUT) and not dataset.purpose.startswith("eval/"):
        yield loc, f"{base!r} has purpose {dataset.purpose}: a benchmark takes eval/…, or {base + HELD_OUT!r}"
