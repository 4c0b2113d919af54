"""Starts of prompts that were read before: found, shared by those who have them, and forgotten in turn."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from llsflow.models.cache import LEAST, Prefix, shared
from llsflow.models.forward import CachedForward, common_start, read_prefix
from llsflow.models.local import LocalModel
from llsflow.models.prefixes import Prefixes


def text(*tokens: int, length: int = LEAST + 10) -> tuple[int, ...]:
    return (*tokens, *range(1000, 1000 + length - len(tokens)))


def prefix(ids: tuple[int, ...]) -> Prefix:
    states = torch.arange(len(ids), dtype=torch.float32).reshape(1, 1, -1, 1)
    return Prefix(ids, ((states, states),))


def test_each_group_shares_the_longest_start_that_its_texts_have() -> None:
    kept = Prefixes(1000)
    first, second = tuple(range(60)), tuple(range(100, 160))
    kept.keep(prefix(first))
    kept.keep(prefix(second))
    texts = [[*first, 7], [*first[:40], 7, 8], [*second[:50], 9], [5, 6, 7], [*first[: LEAST - 1], 9]]
    groups = {tuple(places): start for start, places in kept.groups(texts)}
    assert set(groups) == {(0, 1), (2,), (3, 4)}
    shared_start = groups[0, 1]
    assert shared_start is not None
    assert shared_start.ids == first[:40]
    assert shared_start.states[0][0].flatten().tolist() == list(range(40))
    assert groups[3, 4] is None


def test_a_prompt_keeps_a_token_of_its_own() -> None:
    """The logits of its last token are needed, and only what is read gives them."""
    kept = Prefixes(1000)
    kept.keep(prefix(tuple(range(60))))
    ((start, _),) = kept.groups([list(range(60))])
    assert start is not None
    assert len(start.ids) == 59


def test_the_one_that_was_not_used_longest_is_forgotten() -> None:
    kept = Prefixes(2 * LEAST + 20)
    first, second, third = (text(number) for number in (1, 2, 3))
    kept.keep(prefix(first))
    kept.keep(prefix(second))
    kept.groups([[*first, 9]])  # used
    kept.keep(prefix(third))
    starts = [kept.groups([[*one, 9]])[0][0] is not None for one in (first, second, third)]
    assert starts == [True, False, True]
    kept.clear()
    assert kept.groups([[*first, 9]])[0][0] is None


def test_a_text_that_goes_on_takes_the_place_of_its_start() -> None:
    kept = Prefixes(LEAST + 20)
    kept.keep(prefix(tuple(range(LEAST))))
    kept.keep(prefix(tuple(range(LEAST + 20))))  # both together would be too long
    kept.keep(prefix(tuple(range(LEAST + 5))))  # needless
    ((start, _),) = kept.groups([[*range(LEAST + 20), 9]])
    assert start is not None
    assert len(start.ids) == LEAST + 20


def test_short_and_endless_texts_are_not_kept() -> None:
    kept = Prefixes(100)
    for length in (LEAST - 1, 101):
        kept.keep(prefix(tuple(range(length))))
        assert kept.groups([[*range(length), 9]])[0][0] is None


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_shared_counts_equal_tokens(first: list[int], second: list[int]) -> None:
    n = shared(first, second)
    assert first[:n] == second[:n]
    assert n == min(len(first), len(second)) or first[n] != second[n]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_common_start_leaves_each_a_token(texts: list[list[int]]) -> None:
    start = common_start(texts)
    assert all(one[: len(start)] == start and len(one) > len(start) for one in texts)
    longer = [one[: len(start) + 1] for one in texts]
    assert any(one != longer[0] for one in longer) or any(len(one) == len(start) + 1 for one in texts)


def test_logits_behind_a_prefix_are_those_of_the_whole_text(llama: LocalModel) -> None:
    (start, *rest) = llama.encode(["shared words", "abc", "defgh"])
    read = read_prefix(llama.model, start)
    texts = [start + one for one in rest]
    with torch.inference_mode():
        apart = CachedForward(llama.model, texts, llama.pad, read)
        whole = CachedForward(llama.model, texts, llama.pad)
        for tokens in ([3, 4], [5, 6], [7, 8]):
            assert torch.allclose(apart.logits(), whole.logits(), atol=1e-5)
            for forward in (apart, whole):
                forward.append(torch.tensor(tokens))
        apart.keep([1])
        again = apart.read(0, texts[1] + [4, 6])
        assert again is not None
        assert again.ids == tuple(texts[1] + [4, 6])
        longer = CachedForward(llama.model, [[*again.ids, 8, 9]], llama.pad, again)
        fresh = CachedForward(llama.model, [[*again.ids, 8, 9]], llama.pad)
        assert torch.allclose(longer.logits(), fresh.logits(), atol=1e-5)
