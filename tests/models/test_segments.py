"""Rows without padding: every architecture that runs them gives what each row alone gives; the others are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from llsflow.models.segments import BUCKETS, NAME, Segments, ordinary_attention, use_segments

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


@settings(deadline=None)
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
