"""What an experiment finds on this machine: its model and its rows, checked before anything starts."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llsflow.data.dataset import MAX_TOLD, DatasetFacts, DatasetSource, inspect, locate, overlap, rows_of
from llsflow.data.problems import grouped
from llsflow.errors import DataError, LlsflowError, Mistake, MistakesError, ModelError, UnavailableError
from llsflow.evals import check_columns, check_scorers
from llsflow.models.describe import ModelFacts, is_adapter
from llsflow.models.formula import check_init
from llsflow.models.roles import llama_roles, roles_of
from llsflow.plan import models
from llsflow.plan.baseline import find_baseline
from llsflow.plan.machine import machine_mistakes
from llsflow.plan.models import FoundModel
from llsflow.schema.benchmarks import ModelCandidate, RerankCandidate
from llsflow.schema.datasets import HELD_OUT
from llsflow.schema.experiment import Experiment, asked_models, referenced_datasets
from llsflow.schema.training import LoraFinetuningConfig
from llsflow.scorers import EXPECTED, find_scorer

logger = logging.getLogger("llsflow")


@dataclass
class World:
    """The things that the experiment's names stand for."""

    own: FoundModel
    """The experiment's model."""
    baseline: FoundModel | None = None
    """What the benchmark's baseline stands for; None: the experiment's model."""
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What identifies each model that judges, by the name that it has in the benchmark."""
    sources: dict[str, DatasetSource] = field(default_factory=dict)
    facts: dict[str, DatasetFacts] = field(default_factory=dict)

    @property
    def model(self) -> ModelFacts | None:
        """Return what is known of the experiment's model."""
        return self.own.facts

    def source(self, dataset_id: str) -> DatasetSource:
        """Return the data set behind an id, held out or not."""
        return self.sources[dataset_id.removesuffix(HELD_OUT)]

    def rows(self, dataset_id: str) -> int:
        """Return how many rows the id names."""
        facts = self.facts[dataset_id.removesuffix(HELD_OUT)]
        return facts.held_out if dataset_id.endswith(HELD_OUT) else facts.rows - facts.held_out

    def context(self) -> int | None:
        """Return the model's context in tokens, where it is known."""
        return self.model.context_length if self.model else None


def look(experiment: Experiment, config_dir: Path | None = None) -> World:
    """Find and check the model and every data set.

    Raises:
        DataError: everything that is wrong, at once.
    """
    problems: list[Mistake] = []
    world = World(_find_model(experiment, problems))
    _find_baseline(experiment, world, problems)
    _find_datasets(experiment, world, problems, config_dir)
    _find_judges(experiment, world, problems)
    for loc, message in (
        *_context_mistakes(experiment, world),
        *_kind_mistakes(experiment, world),
        *machine_mistakes(experiment),
    ):
        problems.append(Mistake(".".join(map(str, loc)), message))
    if benchmark := experiment.benchmark:
        config = benchmark.benchmark_config
        ranks = isinstance(config.eval_candidate, RerankCandidate)
        found = check_scorers(benchmark.scoring_functions, config.scoring_params, ranks=ranks)
        problems += [Mistake(".".join(map(str, ("benchmark", *loc))), message) for loc, message in found]
        problems += [Mistake("benchmark.response_format", message) for message in _format_mistakes(experiment)]
    if not problems:
        problems = [*_lacking_columns(experiment, world), *_overlaps(experiment, world)]
    if problems:
        raise DataError(problems)
    return world


def _find_model(experiment: Experiment, problems: list[Mistake]) -> FoundModel:
    model = experiment.model
    problems += [Mistake("model.init", message) for message in (check_init(model.init) if model.init else ())]
    try:
        return models.find(model)
    except LlsflowError as error:
        problems.append(Mistake("model", str(error)))
        return FoundModel(model)


def _find_baseline(experiment: Experiment, world: World, problems: list[Mistake]) -> None:
    try:
        world.baseline = find_baseline(experiment)
    except UnavailableError:
        raise
    except LlsflowError as error:
        problems.append(Mistake("benchmark.baseline", str(error)))


def _find_judges(experiment: Experiment, world: World, problems: list[Mistake]) -> None:
    for loc, name, model_type in asked_models(experiment):
        model = experiment.named_model(name)
        assert model is not None  # noqa: S101 - cross_checks refused it
        try:
            found = models.find(model)
            if model_type == "rerank" and not found.makes_vectors:
                raise ModelError(f"{name!r} makes no vectors: take an embedding model")
            world.judges[name] = found.identity()
        except LlsflowError as error:
            problems.append(Mistake(".".join(map(str, loc)), str(error)))


def _find_datasets(experiment: Experiment, world: World, problems: list[Mistake], config_dir: Path | None) -> None:
    catalogue = experiment.catalogue()
    for dataset_id in sorted({name.removesuffix(HELD_OUT) for _, name in referenced_datasets(experiment)}):
        try:
            source = locate(catalogue[dataset_id], config_dir)
            world.facts[dataset_id] = facts = inspect(source)
            world.sources[dataset_id] = source
            recipe = experiment.recipe
            unread = facts.unread_of_pairs if recipe and recipe.kind == "dpo" else facts.unread
            if unread and recipe:
                columns = ", ".join(f"{name} ({count:,} rows)" for name, count in unread.items())
                logger.warning("%s: columns that nothing reads in training: %s", source.name, columns)
        except MistakesError as error:
            problems += error.mistakes


def _context_mistakes(experiment: Experiment, world: World) -> Iterator[tuple[tuple[str, ...], str]]:
    context = world.context()
    if experiment.recipe:
        wanted = experiment.recipe.max_length
        if wanted is None and context is None and world.model is not None:
            yield ("recipe", "max_length"), "the model does not say its context: set recipe.max_length"
        if wanted is not None and context is not None and wanted > context:
            yield ("recipe", "max_length"), f"{wanted} tokens are over the model's context: allowed are up to {context}"
    if experiment.benchmark:
        candidate = experiment.benchmark.benchmark_config.eval_candidate
        wanted = candidate.sampling_params.max_tokens if isinstance(candidate, ModelCandidate) else None
        facts = (world.model, world.baseline.facts if world.baseline else None)
        contexts = [found.context_length for found in facts if found and found.context_length is not None]
        if wanted is not None and contexts and wanted >= min(contexts):
            loc = ("benchmark", "benchmark_config", "eval_candidate", "sampling_params", "max_tokens")
            yield loc, f"{wanted} leaves no room for a prompt: the model's context is {min(contexts)}"


def _kind_mistakes(experiment: Experiment, world: World) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what the recipe's kind and adapters ask of rows and model that these have not."""
    recipe = experiment.recipe
    if recipe is None:
        return
    for loc, dataset_id in referenced_datasets(experiment):
        facts = world.facts.get(dataset_id.removesuffix(HELD_OUT))
        if loc[0] != "recipe" or facts is None:
            continue
        place = tuple(map(str, loc))
        if recipe.kind == "sft" and facts.preferences:
            yield (
                place,
                f"{facts.preferences} of the {facts.rows} rows of {dataset_id!r} are prompt+chosen+rejected, for "
                "preference optimisation: take recipe=dpo_full or dpo_lora, or rows of messages, prompt+completion or "
                "question+answer",
            )
        elif recipe.kind == "dpo" and facts.pairs < facts.rows:
            yield (
                place,
                f"{facts.rows - facts.pairs} of the {facts.rows} rows of {dataset_id!r} are no preferences: "
                "kind: dpo takes prompt+chosen+rejected",
            )
    if isinstance(recipe.algorithm_config, LoraFinetuningConfig) and world.model is not None:
        roles = roles_of(world.model.shapes) if world.model.shapes else llama_roles(world.model.model_type)
        for message in roles.mistakes(recipe.algorithm_config) if roles else ():
            field, _, why = message.partition(": ")
            yield ("recipe", "algorithm_config", field), why
        if recipe.algorithm_config.quantize_base:
            yield from (((("recipe", "algorithm_config", "quantize_base"), why)) for why in _no_four_bits(world))


def _format_mistakes(experiment: Experiment) -> list[str]:
    """Return what a local model cannot keep to; an endpoint says so itself."""
    wanted = experiment.benchmark.response_format if experiment.benchmark else None
    if wanted is None or experiment.model.endpoint:
        return []
    from llsflow.models.constrain import check_format

    return check_format(wanted)


def _no_four_bits(world: World) -> Iterator[str]:
    if importlib.util.find_spec("bitsandbytes") is None:
        yield "needs bitsandbytes, which is not installed: pip install 'llsflow[quantize]', or set it to false"
    if world.own.path and is_adapter(Path(world.own.path)):
        yield f"{world.own.path} is an adapter: export it merged first, or set quantize_base to false"


def _lacking_columns(experiment: Experiment, world: World) -> list[Mistake]:
    """Return a mistake for each benchmark row that lacks a column which a scoring function needs."""
    benchmark = experiment.benchmark
    if benchmark is None:
        return []
    needed = {column for name in benchmark.scoring_functions for column in find_scorer(name).columns}
    if needed <= {EXPECTED} and world.facts[benchmark.dataset_id.removesuffix(HELD_OUT)].unanswered == 0:
        return []  # every row was seen to have an answer: they need not be read again
    source = world.source(benchmark.dataset_id)
    mistakes = []
    for number, row in rows_of(source, benchmark.dataset_id)[: benchmark.benchmark_config.num_examples]:
        try:
            check_columns(row, benchmark.scoring_functions)
        except ValueError as error:
            mistakes.append(Mistake(f"{source.name}:{number}", str(error)))
    return grouped(mistakes, MAX_TOLD)


def _overlaps(experiment: Experiment, world: World) -> Iterator[Mistake]:
    """Yield a mistake for each data set that is to judge what it also trains."""
    recipe = experiment.recipe
    if recipe is None or recipe.allow_overlap or recipe.training_config.data_config is None:
        return
    trained = recipe.training_config.data_config.dataset_id
    for loc, judged in referenced_datasets(experiment):
        if judged == trained and loc[-1] == "dataset_id" and loc[0] == "recipe":
            continue
        sides = ((world.source(trained), trained), (world.source(judged), judged))
        shared = overlap(*sides, recipe.training_config.data_config.data_format)
        if shared:
            number, twin = shared[0]
            yield Mistake(
                ".".join(map(str, loc)),
                f"{len(shared)} of the {world.rows(judged)} rows of {judged!r} are also training rows of {trained!r} "
                f"(row {number} has the prompt of training row {twin}): remove them, or set "
                "recipe.allow_overlap=true and read the scores with care",
            )
