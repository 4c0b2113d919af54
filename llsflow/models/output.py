"""The output layer on chosen positions alone, and in parts where its logits would fill the memory.

Letters: n rows, l positions of a row, m chosen positions, h hidden size, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llsflow.losses.supervised import token_losses
from llsflow.models.attention import ordinary_attention

MOST_LOGITS = 2**24
"""So many logits are held at once (64 MiB in fp32); more are made in parts, and again in the backward pass."""


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


@contextmanager
def hidden_states(model: Any, positions: Tensor) -> Iterator[list[Tensor]]:
    """While open, the output layer computes one position only; what it was given at the chosen ones is kept, [m, h]."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001
        kept.append(inputs[0][positions])
        return (inputs[0][:1, :1], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def fills_the_memory(model: Any, count: int) -> bool:
    """Return whether the logits of so many positions are better made in parts."""
    return count > _positions_at_once(model)


def _positions_at_once(model: Any) -> int:
    return max(1, MOST_LOGITS // int(model.config.get_text_config().vocab_size))


def losses_in_parts(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return each position's negative log-likelihood, [m] in nats, never holding more than MOST_LOGITS logits.

    Args:
        model: whose output layer is plain.
        hidden: [m, h].
        labels: int64 [m].
    """
    head = model.get_output_embeddings()
    size = _positions_at_once(model)

    def part(states: Tensor, wanted: Tensor) -> Tensor:
        return token_losses(head(states), wanted)

    found = [
        checkpoint(part, states, wanted, use_reentrant=False)
        for states, wanted in zip(torch.split(hidden, size), torch.split(labels, size), strict=True)
    ]
    return torch.cat(found)


def is_plain(model: Any) -> bool:
    """Return whether the logits are what the output layer gives, with nothing done to them; found out by trying."""
    head, training = model.get_output_embeddings(), model.training
    given: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    model.train(False)
    try:
        with torch.no_grad(), ordinary_attention(model):
            ids = torch.arange(4, device=model.device)[None] % int(model.config.get_text_config().vocab_size)
            logits = model(input_ids=ids, use_cache=False).logits
            return torch.equal(head(given[0]), logits)
    finally:
        handle.remove()
        model.train(training)
