"""What the model being trained answers to the first examples of the validation: seen long before a benchmark is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from llsflow.losses.supervised import IGNORED
from llsflow.models.attention import ordinary_attention
from llsflow.models.local import LocalModel
from llsflow.schema.sampling import SamplingParams
from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import Sample


def generate_samples(model: Any, tokenizer: Any, examples: ExampleTable, count: int, max_tokens: int) -> list[Sample]:
    """Return greedy answers to the prompts of the first `count` examples; the model is left in training mode.

    Args:
        model: a causal language model, with adapters or without.
        tokenizer: its own.
        examples: of pairs, the chosen answer is what is expected.
        count: how many.
        max_tokens: of an answer.
    """
    made = []
    training = model.training
    with ordinary_attention(model), torch.no_grad():
        local = LocalModel(model, tokenizer)
        for example in range(min(count, len(examples))):
            micro = examples.collate(np.array([example]))
            length = micro.segments.own[0]
            ids, learned = micro.input_ids[:length].tolist(), (micro.labels[:length] != IGNORED).tolist()
            begin = learned.index(True) + 1
            room = max_tokens if local.context_length is None else min(max_tokens, local.context_length - begin)
            if room < 1:
                continue
            row = local.row(ids[:begin], SamplingParams(max_tokens=room), seed=0)
            local.decode([row], lambda ended: None, at_once=1)
            if row.finish is None:  # not a number: the loss will say so too
                continue
            prompt, expected = (tokenizer.decode(part) for part in (ids[:begin], ids[begin:]))
            made.append(Sample(micro.rows[0], prompt, expected, local.generation(row, prompt).text))
    model.train(training)
    return made
