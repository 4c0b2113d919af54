"""Rows without padding: every architecture that runs them gives what each row alone gives; the others are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from llsflow.models.attention import NAME, ordinary_attention, use_segments
from llsflow.models.segments import BUCKETS, Segments

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
LLAMA = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
RUNS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 5},
    "qwen2": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 16},
    "phi3": {**LLAMA, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "granite": {**LLAMA, "logits_scaling": 2.0, "attention_multiplier": 0.3},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 97},
    "gpt_neox": {**SMALL, "intermediate_size": 48, "max_position_embeddings": 128},
}
KEEPS_ITS_OWN: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97},
    "gemma2": {**LLAMA, "head_dim": 16},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 97},
}


def model(kind: str, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config: Any = AutoConfig
    auto: Any = AutoModelForCausalLM
    return auto.from_config(config.for_model(kind, **sizes)).eval()


@pytest.mark.parametrize("kind", RUNS)
def test_each_row_has_the_logits_it_has_alone(kind: str) -> None:
    made = model(kind, RUNS[kind])
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 97, (length,), generator=generator) for length in (3, 17, 1, 40, 9, 8)]
    with torch.no_grad():
        alone = torch.cat([made(input_ids=row[None], use_cache=False).logits[0] for row in rows])
        assert use_segments(made)
        segments = Segments.of([len(row) for row in rows])
        assert len(segments.buckets) > 1
        together = made(
            input_ids=torch.cat(rows)[None], position_ids=segments.positions, segments=segments, use_cache=False
        ).logits[0]
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    with ordinary_attention(made), torch.no_grad():
        again = made(input_ids=rows[1][None], use_cache=False).logits[0]
    torch.testing.assert_close(again, alone[3:20], atol=2e-5, rtol=1e-4)
    assert made.config._attn_implementation == NAME


@pytest.mark.parametrize("kind", KEEPS_ITS_OWN)
def test_what_does_more_than_attention_within_rows_stays_as_it_is(kind: str) -> None:
    made = model(kind, KEEPS_ITS_OWN[kind])
    before = made.config._attn_implementation
    assert not use_segments(made)
    assert made.config._attn_implementation == before
    assert made(input_ids=torch.arange(6)[None]).logits.isfinite().all()


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_buckets_hold_every_token_once(lengths: list[int]) -> None:
    segments = Segments.of(lengths)
    assert sum(bucket.rows for bucket in segments.buckets) == len(lengths)
    assert 1 <= len(segments.buckets) <= BUCKETS
    sequence = torch.arange(sum(lengths))
    spread = [sequence[bucket.spread][bucket.back] for bucket in segments.buckets]
    assert torch.cat(spread)[segments.order].tolist() == sequence.tolist()
    assert segments.positions[0].tolist() == [place for length in lengths for place in range(length)]


def test_rows_of_unlike_length_are_not_padded_to_the_longest() -> None:
    segments = Segments.of([500, *([10] * 50)])
    assert sum(bucket.rows * bucket.longest**2 for bucket in segments.buckets) == 500**2 + 50 * 10**2


def test_rows_that_share_their_beginning_compute_it_once() -> None:
    """Two answers to one prompt, and other rows between: the logits and gradients of whole rows."""
    made = model("llama", RUNS["llama"])
    generator = torch.Generator().manual_seed(2)
    first, second, other = (torch.randint(3, 97, (length,), generator=generator) for length in (12, 9, 5))
    second[:6] = first[:6]
    rows, shared = [first, second, other, first, second], [0, 6, 0, 0, 6]
    use_segments(made)

    def run(shared: list[int]) -> tuple[list[torch.Tensor], torch.Tensor, int]:
        made.zero_grad()
        segments = Segments.of([len(row) for row in rows], shared)
        ids = torch.cat([row[common:] for row, common in zip(rows, shared, strict=True)])
        assert [row.tolist() for row in segments.rows(ids)] == [row.tolist() for row in rows]
        logits = made(input_ids=ids[None], position_ids=segments.positions, segments=segments, use_cache=False).logits
        own = torch.split(logits[0], segments.own)
        sum(part[-2:].sum() for part in own).backward()
        return [part[-2:].detach() for part in own], made.model.embed_tokens.weight.grad.clone(), len(ids)

    apart, together = run([0] * 5), run(shared)
    torch.testing.assert_close(together[0], apart[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[1], apart[1], atol=1e-5, rtol=1e-4)
    assert together[2] == apart[2] - 12
