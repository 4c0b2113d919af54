"""What a training minimises on a micro-batch: the supervised loss, or one of preferences.

Letters: t tokens of the micro-batch, m of them under loss, n rows, l the longest row, h hidden size, v vocabulary,
p pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llsflow.losses.preference import CHOSEN, REJECTED, preference_loss, rewards
from llsflow.losses.supervised import IGNORED, answer_log_probabilities, token_loss_sum
from llsflow.models.segments import NAME as SEGMENTS
from llsflow.schema.training import DPOAlignmentConfig, Recipe
from llsflow.training.examples import MicroBatch


@dataclass(frozen=True)
class Measured:
    """A micro-batch's loss, and what else is worth drawing; all are sums over its `weight`."""

    loss: Tensor
    """Scalar, with the gradient."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars without gradient, by name."""


Objective = Callable[[nn.Module, MicroBatch], Measured]


def objective_of(recipe: Recipe) -> Objective:
    """Return what a recipe's training minimises."""
    if recipe.alignment_config is None:
        return supervised
    config = recipe.alignment_config
    return lambda model, batch: preference(model, batch, config)


def supervised(model: nn.Module, batch: MicroBatch) -> Measured:
    """Return the summed loss of the tokens under loss, in nats."""
    logits, labels = logits_under_loss(model, batch)
    return Measured(token_loss_sum(logits, labels))


def preference(model: nn.Module, batch: MicroBatch, config: DPOAlignmentConfig) -> Measured:
    """Return the summed loss of the pairs, with rewards and log-probabilities.

    Accuracy is the share of pairs whose chosen answer has the higher reward; a tie, as before the first step, is half.
    """
    assert batch.reference is not None  # noqa: S101 - fit asks for it
    policy, tokens = pair_log_probabilities(model, batch)
    loss = preference_loss(policy, batch.reference, tokens, config).sum()
    rewarded = rewards(policy, batch.reference, config.beta)
    margin = rewarded[:, CHOSEN] - rewarded[:, REJECTED]
    return Measured(
        loss,
        {
            "reward_accuracy": ((margin > 0).float() + 0.5 * (margin == 0).float()).sum(),
            "reward_margin": margin.sum(),
            "reward_chosen": rewarded[:, CHOSEN].sum(),
            "reward_rejected": rewarded[:, REJECTED].sum(),
            "logp_chosen": policy.detach()[:, CHOSEN].sum(),
            "logp_rejected": policy.detach()[:, REJECTED].sum(),
        },
    )


def pair_log_probabilities(model: nn.Module, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return log π of each pair's answers, [p, 2] in fp32, and how many tokens each has, [p, 2]."""
    logits, labels = logits_under_loss(model, batch)
    lengths = torch.tensor(batch.segments.lengths, device=labels.device)
    row = torch.repeat_interleave(torch.arange(len(lengths), device=labels.device), lengths)[batch.labels != IGNORED]
    count = len(lengths)
    nats = answer_log_probabilities(logits, labels, row, count)
    return nats.view(-1, 2), torch.bincount(row, minlength=count).view(-1, 2)


def logits_under_loss(model: Any, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return the logits at the positions under loss, [m, v], and what they are to predict, [m].

    The output layer sees no other position: the logits of the others, most of the memory with a large
    vocabulary, are never computed.
    """
    positions = batch.labels != IGNORED
    if model.config._attn_implementation == SEGMENTS:
        inputs = {"input_ids": batch.input_ids[None], "position_ids": batch.segments.positions}
        with output_positions(model, positions[None]):
            logits = model(**inputs, segments=batch.segments, use_cache=False).logits
    else:
        # no attention mask: padding stands on the right of a causal model, so no real token sees it
        padded, wanted = _padded(batch, positions)
        with output_positions(model, wanted):
            logits = model(input_ids=padded, use_cache=False).logits
    return logits[0], batch.labels[positions]


def _padded(batch: MicroBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows side by side, padded on the right: ids [n, l] and which positions are under loss."""
    lengths = list(batch.segments.lengths)
    rows = [torch.split(x, lengths) for x in (batch.input_ids, positions)]
    ids, wanted = (torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True) for parts in rows)
    return ids, wanted


@contextmanager
def output_positions(model: Any, positions: Tensor) -> Iterator[None]:
    """While open, the model's output layer is given only the chosen positions, as one sequence [1, m, h].

    A hook on that layer rather than the model's inner parts: what some architectures do to the logits
    afterwards (scaling, soft-capping) goes on being done by the model itself.

    Args:
        model: a Hugging Face causal language model.
        positions: bool [n, l], m of them True.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001
        return (inputs[0][positions][None], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
