"""What a plan will cost, from counts and formulas alone: said before anything runs, and said to be about right."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llsflow.models.roles import adapter_parameters
from llsflow.plan.world import World
from llsflow.schema.benchmarks import ModelCandidate
from llsflow.schema.datasets import HELD_OUT
from llsflow.schema.experiment import Experiment
from llsflow.schema.plan import Estimate
from llsflow.schema.training import LoraFinetuningConfig, Recipe
from llsflow.steps.speed import flops_per_second
from llsflow.training.checkpoints import RESUMABLE

TEMPLATE_TOKENS = 4
"""Tokens that a chat template adds to a turn."""

CHARACTERS_PER_TOKEN = 4.0
"""English text under a byte-level BPE vocabulary of the usual size."""

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Cost:
    """The counts that every estimate starts from."""

    parameters: int | None
    tokens_per_row: float

    def seconds(self, tokens: float, passes: int) -> float | None:
        """Return the time for tokens at 2 operations a parameter and pass (arXiv:2001.08361, section 2.1)."""
        return 2 * passes * self.parameters * tokens / flops_per_second() if self.parameters else None


def cost_of(world: World, dataset_id: str, exact_tokens: int | None = None) -> Cost:
    """Return the counts of a data set under the model; `exact_tokens` where it was tokenised before."""
    facts = world.facts[dataset_id.removesuffix(HELD_OUT)]
    parameters = world.model.parameters if world.model else None
    if exact_tokens is not None:
        return Cost(parameters, exact_tokens / max(1, world.rows(dataset_id)))
    byte_level = bool(world.model and world.model.vocab_size and world.model.vocab_size < 1000)
    tokens = facts.characters / (1.0 if byte_level else CHARACTERS_PER_TOKEN) + TEMPLATE_TOKENS * facts.turns
    return Cost(parameters, tokens / facts.rows)


def optimizer_steps(rows: int, recipe: Recipe, cost: Cost, devices: int = 1) -> int:
    """Return the optimizer steps of a training on so many rows."""
    config = recipe.training_config
    assert config.data_config is not None  # noqa: S101 - cross_checks refused it
    sequences = rows
    if config.data_config.packed:
        sequences = math.ceil(rows * cost.tokens_per_row / recipe.packed_length)
    batches = math.ceil(sequences / config.data_config.batch_size)
    steps = math.ceil(batches / (config.gradient_accumulation_steps * devices))
    if config.max_steps_per_epoch > 0:
        steps = min(steps, config.max_steps_per_epoch)
    return steps * config.n_epochs


def of_prepare(world: World, dataset_id: str, cost: Cost) -> Estimate:
    """Return the estimate of tokenising: about 5,000 rows a second, 5 bytes on disk a token."""
    rows = world.rows(dataset_id)
    tokens = round(rows * cost.tokens_per_row)
    return Estimate(rows=rows, tokens=tokens, disk_bytes=5 * tokens, seconds=rows / 5000)


def of_reference(rows: int, cost: Cost) -> Estimate:
    """Return the estimate of asking the reference: one pass forward over both answers of every pair."""
    tokens = round(rows * cost.tokens_per_row)
    return Estimate(
        rows=rows,
        tokens=tokens,
        parameters=cost.parameters,
        disk_bytes=8 * rows,
        seconds=cost.seconds(tokens, passes=1),
    )


def of_train(world: World, experiment: Experiment, cost: Cost) -> Estimate:
    """Return the estimate of training: weights, of those that learn gradient and two moments too, and activations."""
    recipe = experiment.recipe
    assert recipe is not None  # noqa: S101 - asked only with a recipe
    config = recipe.training_config
    assert config.data_config is not None  # noqa: S101 - cross_checks refused it
    rows = world.rows(config.data_config.dataset_id)
    devices = experiment.trainer.devices
    steps = optimizer_steps(rows, recipe, cost, devices)
    a_sequence = recipe.packed_length / cost.tokens_per_row if config.data_config.packed else 1
    a_step = config.data_config.batch_size * config.gradient_accumulation_steps * devices * a_sequence
    seen = min(round(steps * a_step), rows * config.n_epochs)
    tokens = round(seen * cost.tokens_per_row)
    parameters = cost.parameters
    held = BYTES[config.dtype or "fp32"] if experiment.trainer.precision == "true" else 4
    learning = _learning(world, recipe, parameters)
    adapters = recipe.algorithm_config is not None
    batch_tokens = config.data_config.batch_size * a_sequence * cost.tokens_per_row
    return Estimate(
        rows=seen,
        tokens=tokens,
        optimizer_steps=steps,
        parameters=parameters,
        memory_bytes=(
            round(parameters * _bytes_at_rest(recipe, held) + learning * held * 3 + _activations(world, batch_tokens))
            if parameters
            else None
        ),
        disk_bytes=learning * held * _copies_on_disk(recipe, steps) if parameters else None,
        # with adapters the weights' own gradients, a third of the work, are not computed
        seconds=cost.seconds(tokens, passes=2 if adapters else 3),
    )


def _learning(world: World, recipe: Recipe, parameters: int | None) -> int:
    """Return how many parameters learn; adapters of a model that is not built yet are counted as a fiftieth."""
    config = recipe.algorithm_config
    if not isinstance(config, LoraFinetuningConfig):
        return parameters or 0
    shapes = world.model.shapes if world.model else {}
    return adapter_parameters(shapes, config) if shapes else (parameters or 0) // 50


def _bytes_at_rest(recipe: Recipe, held: int) -> float:
    """Return the bytes of one weight in memory: half a byte in 4 bits."""
    config = recipe.algorithm_config
    return 0.5 if isinstance(config, LoraFinetuningConfig) and config.quantize_base else held


def _copies_on_disk(recipe: Recipe, steps: int) -> int:
    """Return how many numbers a parameter the checkpoints hold: its weight in each, two moments in the newest two.

    Where there is a validation, the best checkpoint by it may be one more.
    """
    made = math.ceil(steps / recipe.checkpoint_every_n_steps)
    kept = min(made, recipe.keep_checkpoints or made)
    data = recipe.training_config.data_config
    return kept + 2 * min(kept, RESUMABLE) + int(data is not None and data.validation_dataset_id is not None)


def _activations(world: World, tokens: float) -> float:
    """Return bytes of activations: 34 a token, layer and unit in half precision, twice that in fp32.

    Source: arXiv:2205.05198, equation 1, without the attention matrix (it is not stored).
    """
    model = world.model
    if model is None or not model.layers or not model.hidden_size:
        return 0.0
    return tokens * (68.0 * model.layers * model.hidden_size + 8.0 * (model.vocab_size or 0))


def of_export(cost: Cost, dtype: str) -> Estimate:
    """Return the estimate of writing the weights."""
    size = cost.parameters * BYTES[dtype] if cost.parameters else None
    return Estimate(parameters=cost.parameters, disk_bytes=size, seconds=size / 2e8 if size else None)


def of_evaluate(world: World, experiment: Experiment, cost: Cost) -> Estimate:
    """Return the estimate of generating: every row's prompt once, then up to max_tokens tokens."""
    benchmark = experiment.benchmark
    assert benchmark is not None  # noqa: S101 - asked only with a benchmark
    config = benchmark.benchmark_config
    rows = min(world.rows(benchmark.dataset_id), config.num_examples or 10**12) * benchmark.repeats
    candidate = config.eval_candidate
    longest = 0  # a reranker reads, and writes nothing
    if isinstance(candidate, ModelCandidate):
        longest = candidate.sampling_params.max_tokens or world.context() or 256
    tokens = round(rows * (cost.tokens_per_row + longest))
    return Estimate(rows=rows, tokens=tokens, parameters=cost.parameters, seconds=cost.seconds(tokens, passes=1))
