"""Sampling: closed forms and the properties that define each strategy."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.sampling import choose, draw, nucleus, penalise
from llsflow.schema.sampling import GreedySamplingStrategy, TopKSamplingStrategy, TopPSamplingStrategy

LOGITS = st.lists(st.floats(-8, 8), min_size=2, max_size=9)
UNIT = st.floats(0, 1, exclude_max=True)


@settings(max_examples=300, derandomize=True)
@given(logits=LOGITS, top_p=st.floats(0.01, 1))
def test_nucleus_is_the_smallest_set_that_reaches_top_p(logits: list[float], top_p: float) -> None:
    p = torch.tensor([logits], dtype=torch.float64).softmax(-1).sort(descending=True).values
    kept = int(nucleus(p, top_p).sum())
    mass = p[0].cumsum(0)
    assert nucleus(p, top_p)[0, :kept].all()
    assert kept == len(logits) or mass[kept - 1] >= top_p - 1e-12
    assert kept == 1 or mass[kept - 2] < top_p + 1e-12


@settings(max_examples=100, derandomize=True)
@given(logits=LOGITS, u=UNIT, k=st.integers(1, 12))
def test_top_k_draws_from_the_k_largest_and_one_is_greedy(logits: list[float], u: float, k: int) -> None:
    row = torch.tensor([logits])
    token = int(choose(row, TopKSamplingStrategy(top_k=k), torch.tensor([u])))
    assert logits[token] >= sorted((float(x) for x in row[0]), reverse=True)[:k][-1] - 1e-6
    if k == 1:
        assert logits[token] == max(logits)


@settings(max_examples=100, derandomize=True)
@given(logits=LOGITS, u=UNIT)
def test_a_tiny_top_p_is_greedy(logits: list[float], u: float) -> None:
    row = torch.tensor([logits])
    token = int(choose(row, TopPSamplingStrategy(temperature=1.0, top_p=1e-6), torch.tensor([u])))
    assert row[0, token] == row[0, int(choose(row, GreedySamplingStrategy(), torch.tensor([0.0])))]


def test_draws_follow_the_distribution_exactly() -> None:
    # weights 1 : 2 : 1: the first quarter of [0, 1) is token 30, the next half 10, the last quarter 20
    weights, tokens = torch.tensor([[1.0, 2.0, 1.0]] * 6).double(), torch.tensor([[30, 10, 20]] * 6)
    drawn = draw(weights, tokens, torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 1e-12]).double())
    assert drawn.tolist() == [30, 30, 10, 10, 20, 20]


def test_tokens_without_weight_are_never_drawn() -> None:
    weights, tokens = torch.tensor([[0.5, 0.1, 0.0, 0.0]]).double(), torch.tensor([[0, 1, 2, 3]])
    assert int(draw(weights, tokens, torch.tensor([math.nextafter(1, 0)]).double())) == 1


def test_temperature_and_top_p_in_numbers() -> None:
    # probabilities 0.6, 0.3, 0.1; at temperature 0.5 they become 36 : 9 : 1, so 0.7826, 0.1957, 0.0217
    row = torch.tensor([0.6, 0.3, 0.1]).log().unsqueeze(0)

    def at(u: float, temperature: float, top_p: float | None) -> int:
        return int(choose(row, TopPSamplingStrategy(temperature=temperature, top_p=top_p), torch.tensor([u])))

    assert [at(u, 1.0, None) for u in (0.59, 0.61, 0.91)] == [0, 1, 2]
    assert [at(u, 0.5, None) for u in (0.78, 0.79, 0.97, 0.98)] == [0, 1, 1, 2]
    # top_p 0.7 keeps 0.6 and 0.3, so that the first holds two thirds
    assert [at(u, 1.0, 0.7) for u in (0.66, 0.67, 0.999)] == [0, 1, 1]


def test_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 3.0, -3.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalise(logits, seen, 2.0).tolist() == [[1.0, -4.0, 3.0, -3.0]]


@settings(max_examples=60, derandomize=True)
@given(seed=st.integers(0, 10_000), top_p=st.floats(0.05, 0.99), k=st.integers(1, 20), penalty=st.floats(0.5, 2))
def test_kept_tokens_and_penalties_are_those_of_transformers(seed: int, top_p: float, k: int, penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 20, generator=draw, dtype=torch.float64) * 3
    ids = torch.randint(0, 20, (3, 6), generator=draw)
    probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, order, nucleus(probabilities, top_p))
    assert torch.equal(kept, TopPLogitsWarper(top_p)(ids, logits.clone()).isfinite())
    top = torch.zeros_like(kept).scatter_(1, logits.topk(k).indices, True)
    assert torch.equal(top, TopKLogitsWarper(k)(ids, logits.clone()).isfinite())
    seen = torch.zeros_like(kept).scatter_(1, ids, True)
    assert torch.equal(penalise(logits, seen, penalty), RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone()))
