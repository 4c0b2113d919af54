"""What a training minimises on a micro-batch: the supervised loss, or one of preferences.

Letters: t tokens of the micro-batch, m of them under loss, n rows, l the longest row, p pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llsflow.losses.preference import CHOSEN, REJECTED, preference_loss, rewards
from llsflow.losses.supervised import IGNORED, answer_log_probabilities, token_losses
from llsflow.models.attention import NAME as SEGMENTS
from llsflow.models.output import fills_the_memory, hidden_states, losses_in_parts, output_positions
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


def objective_of(recipe: Recipe, *, plain: bool = False) -> Objective:
    """Return what a recipe's training minimises; `plain`: the logits are what the model's output layer gives."""
    if recipe.alignment_config is None:
        return lambda model, batch: supervised(model, batch, plain=plain)
    config = recipe.alignment_config
    return lambda model, batch: preference(model, batch, config, plain=plain)


def supervised(model: nn.Module, batch: MicroBatch, *, plain: bool = False) -> Measured:
    """Return the summed loss of the tokens under loss, in nats."""
    return Measured(losses_under_loss(model, batch, plain=plain).sum())


def preference(model: nn.Module, batch: MicroBatch, config: DPOAlignmentConfig, *, plain: bool = False) -> Measured:
    """Return the summed loss of the pairs, with rewards and log-probabilities.

    Accuracy is the share of pairs whose chosen answer has the higher reward; a tie, as before the first step, is half.
    """
    assert batch.reference is not None  # noqa: S101 - fit asks for it
    policy, tokens = pair_log_probabilities(model, batch, plain=plain)
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


def pair_log_probabilities(model: nn.Module, batch: MicroBatch, *, plain: bool = False) -> tuple[Tensor, Tensor]:
    """Return log π of each pair's answers, [p, 2] in fp32, and how many tokens each has, [p, 2]."""
    losses = losses_under_loss(model, batch, plain=plain)
    device = losses.device
    own = torch.tensor(batch.segments.own, device=device)
    count = len(own)
    row = torch.repeat_interleave(torch.arange(count, device=device), own)[batch.labels != IGNORED]
    nats = answer_log_probabilities(losses, row, count)
    return nats.view(-1, 2), torch.bincount(row, minlength=count).view(-1, 2)


def losses_under_loss(model: Any, batch: MicroBatch, *, plain: bool = False) -> Tensor:
    """Return the negative log-likelihood of each token under loss, in nats, [m].

    The output layer sees no other position: the logits of the others, most of the memory with a large
    vocabulary, are never computed. Those of many tokens are computed in parts, where nothing is done to them.
    """
    positions = batch.labels != IGNORED
    labels = batch.labels[positions]
    if model.config._attn_implementation == SEGMENTS:
        wanted = positions[None]
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids[None],
            "position_ids": batch.segments.positions,
            "segments": batch.segments,
        }
    else:
        # no attention mask: padding stands on the right of a causal model, so no real token sees it
        padded, wanted = _padded(batch, positions)
        inputs = {"input_ids": padded}
    if plain and fills_the_memory(model, len(labels)):
        with hidden_states(model, wanted) as kept:
            model(**inputs, use_cache=False)
        return losses_in_parts(model, kept[0], labels)
    with output_positions(model, wanted):
        logits = model(**inputs, use_cache=False).logits
    return token_losses(logits[0], labels)


def _padded(batch: MicroBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows side by side, padded on the right: ids [n, l] and which positions are under loss."""
    rows = [batch.segments.rows(x) for x in (batch.input_ids, positions)]
    ids, wanted = (torch.nn.utils.rnn.pad_sequence(parts, batch_first=True) for parts in rows)
    return ids, wanted
