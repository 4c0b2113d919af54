"""Cross entropy of the next token.

Letters: b sequences, t tokens, m tokens under loss, v vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""Label of a token that carries no loss."""


def next_token_labels(input_ids: Tensor, loss_mask: Tensor) -> Tensor:
    """Return what each position must predict: the next token where that one is under loss, else IGNORED.

    Args:
        input_ids: [b, t].
        loss_mask: bool [b, t]; True where the token itself is to be learned.

    Returns:
        int64 [b, t]; the last position predicts nothing.
    """
    labels = torch.full_like(input_ids, IGNORED)
    labels[:, :-1] = torch.where(loss_mask[:, 1:], input_ids[:, 1:], IGNORED)
    return labels


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each token's negative log-likelihood, in nats, [m] in fp32.

    Not their mean: the caller divides by the number of tokens under loss of the whole optimizer step, so that
    gradient accumulation gives exactly the gradient of one large batch.

    Args:
        logits: [m, v].
        labels: int64 [m], none IGNORED.

    Source: cross entropy -log softmax(logits)[label], as in Bengio et al. 2003 (JMLR 3), equation 3.
    """
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def answer_log_probabilities(losses: Tensor, answer: Tensor, count: int) -> Tensor:
    """Return log π of each answer, in nats, [count]: the sum over its tokens.

    Args:
        losses: [m], as `token_losses` gives them.
        answer: int64 [m], which answer each token belongs to, below `count`.
        count: how many answers there are.
    """
    return losses.new_zeros(count).index_add(0, answer, -losses)
