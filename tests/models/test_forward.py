"""Whatever a batch shares and however it came together, each row's logits are those of its text alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from llsflow.models.cache import LEAST, Prefix
from llsflow.models.forward import CachedForward, packs, read_prefix
from llsflow.models.local import LocalModel
from tests.models.small import ARCHITECTURES, SIZES, make

MORE: dict[str, dict[str, Any]] = {
    "qwen3": SIZES,
    "phi3": SIZES,
    "cohere": SIZES,
    "qwen3_moe": {**SIZES, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "stablelm": SIZES,  # does not hand on what its attention would need
}
VOCABULARY = 261


@pytest.fixture(scope="module", params=["llama", "gpt2", "mistral", *MORE])
def local(request: pytest.FixtureRequest) -> LocalModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, request.param, {**ARCHITECTURES, **MORE}[request.param])
        return make(request.param)


class Texts:
    """A batch beside the whole text of each of its rows."""

    def __init__(self, local: LocalModel, texts: list[list[int]], prefix: Prefix | None = None) -> None:
        self.local, self.texts = local, [list(text) for text in texts]
        self.forward = CachedForward(local.model, texts, local.pad, prefix)

    def step(self) -> None:
        """Compare the logits of each row, and go on with a token of its own."""
        logits = self.forward.logits()
        for row, text in enumerate(self.texts):
            alone = self.local.model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[row], alone, atol=2e-3 * float(alone.std()), rtol=0)
        tokens = [(sum(text) + row) % VOCABULARY for row, text in enumerate(self.texts)]
        self.forward.append(torch.tensor(tokens))
        for text, token in zip(self.texts, tokens, strict=True):
            text.append(token)

    def keep(self, rows: list[int]) -> None:
        self.forward.keep(rows)
        self.texts = [self.texts[row] for row in rows]

    def join(self, other: Texts) -> None:
        self.forward.join(other.forward)
        self.texts += other.texts

    @property
    def held(self) -> int:
        """How many tokens of each row stand in the cache."""
        return int(self.forward.layers[0].keys.shape[2])


def tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(3))
def test_rows_come_and_go(local: LocalModel, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a repeatable test
    start = tokens(rng, LEAST + 4)
    prefix = read_prefix(local.model, start)
    batch = Texts(local, [start + tokens(rng, count) for count in (1, 9, 3)], prefix)
    for _ in range(2):
        batch.step()
    batch.keep([0, 2])
    batch.step()
    if not batch.forward.grows:
        return
    for beginning, begun in ((start, prefix), (start[:LEAST], prefix and prefix.cut(LEAST)), (tokens(rng, 2), None)):
        joining = Texts(local, [beginning + tokens(rng, count) for count in (5, 2)], begun)
        joining.step()
        batch.join(joining)
        batch.step()
    batch.keep([1, 3, 4])
    batch.step()


@torch.inference_mode()
def test_a_start_that_rows_share_stands_in_memory_once(llama: LocalModel) -> None:
    assert packs(llama.model)
    rng = random.Random(0)  # noqa: S311 - a repeatable test
    start = tokens(rng, LEAST + 20)
    prefix = read_prefix(llama.model, start)
    assert prefix is not None
    batch = Texts(llama, [start + tokens(rng, count) for count in (1, 4)], prefix)
    batch.step()
    assert batch.held == 4
    other = Texts(llama, [[*start, 7, 8]], prefix)
    other.step()
    batch.join(other)
    batch.step()
    assert batch.held == 5, "the other shares all of it as well"
    shorter = Texts(llama, [[*start[:LEAST], 9, 9, 9]], prefix.cut(LEAST))
    shorter.step()
    batch.join(shorter)
    assert batch.held == 5 + 20, "what the new row does not share is each row's own"
    assert batch.forward.shared is not None
    assert len(batch.forward.shared.ids) == LEAST
    read = batch.forward.read(0, batch.texts[0])
    assert read is not None
    assert read.ids == tuple(batch.texts[0][:-1]), "all but the last, which was not read yet"
    torch.testing.assert_close(read.states[0][0][:, :, : len(start)], prefix.states[0][0])


@torch.inference_mode()
def test_prompts_are_read_without_padding(llama: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    forward = llama.model.forward
    packs(llama.model)

    def counting(**kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].shape)
        return forward(**kwargs)

    monkeypatch.setattr(llama.model, "forward", counting)
    monkeypatch.setattr("llsflow.models.forward._parameters", lambda _: {"logits_to_keep"})
    CachedForward(llama.model, [[5] * 40, [6], [7, 8]], llama.pad).logits()
    assert seen == [(1, 43)]


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3", "phi3", "cohere", "qwen3_moe"])
def test_common_architectures_read_prompts_one_after_another(model_type: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, model_type, {**ARCHITECTURES, **MORE}[model_type])
        assert packs(make(model_type).model)


def test_a_model_that_does_not_hand_on_what_attention_needs_pads_its_prompts() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "stablelm", SIZES)
        assert not packs(make("stablelm").model)
        assert not packs(make("bloom").model)
