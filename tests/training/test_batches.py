"""Batches: every row once an epoch, the same for the same seed, padded where nobody sees it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.data.tokens import TokenTable
from llsflow.losses.supervised import IGNORED
from llsflow.training.batches import BatchSettings, StepDataset, collate, plan_steps


def settings(**changes: object) -> BatchSettings:
    base = {
        "batch_size": 4,
        "accumulation": 2,
        "shuffle": True,
        "group_by_length": True,
        "max_steps_per_epoch": 0,
        "seed": 3,
    }
    return BatchSettings(**{**base, **changes})  # type: ignore[arg-type]


def table(*rows: list[int]) -> TokenTable:
    lengths = [len(row) for row in rows]
    ids = np.array([token for row in rows for token in row], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenTable(ids, np.ones(len(ids), dtype=np.bool_), offsets, np.arange(1, len(rows) + 1))


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80),
    batch_size=st.integers(1, 9),
    accumulation=st.integers(1, 4),
    shuffle=st.booleans(),
    grouped=st.booleans(),
    epochs=st.integers(1, 3),
)
def test_every_epoch_has_every_row_once(
    lengths: list[int], batch_size: int, accumulation: int, shuffle: bool, grouped: bool, epochs: int
) -> None:
    chosen = settings(batch_size=batch_size, accumulation=accumulation, shuffle=shuffle, group_by_length=grouped)
    plan = plan_steps(np.array(lengths), epochs, chosen)
    begin = 0
    for end in plan.epoch_ends:
        rows = [int(row) for step in plan.steps[begin:end] for batch in step for row in batch]
        assert sorted(rows) == list(range(len(lengths)))
        begin = end
    assert all(len(batch) <= batch_size for step in plan.steps for batch in step)
    assert all(1 <= len(step) <= accumulation for step in plan.steps)


def test_the_same_seed_gives_the_same_order_and_another_seed_or_epoch_another() -> None:
    lengths = np.arange(1, 101)
    first, again = (plan_steps(lengths, 2, settings()) for _ in range(2))
    flat = [[int(r) for step in plan.steps for batch in step for r in batch] for plan in (first, again)]
    assert flat[0] == flat[1]
    other = [int(r) for step in plan_steps(lengths, 2, settings(seed=4)).steps for batch in step for r in batch]
    assert other != flat[0]
    assert flat[0][:100] != flat[0][100:]


def test_without_shuffle_the_files_order_is_kept() -> None:
    plan = plan_steps(np.array([9, 1, 5, 3, 7]), 1, settings(shuffle=False, batch_size=2, accumulation=1))
    assert [batch.tolist() for step in plan.steps for batch in step] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("most", "steps"), [(0, 5), (-1, 5), (3, 3), (99, 5)])
def test_max_steps_per_epoch_counts_optimizer_steps(most: int, steps: int) -> None:
    # 40 rows / 4 a batch / 2 batches a step = 5 steps
    plan = plan_steps(np.ones(40, dtype=np.int64), 2, settings(max_steps_per_epoch=most))
    assert len(plan.steps) == 2 * steps
    assert plan.epoch_ends == [steps, 2 * steps]
    assert [plan.epoch_of(step) for step in (0, steps - 1, steps)] == [0, 0, 1]


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=256)

    def padding(grouped: bool) -> int:
        plan = plan_steps(lengths, 1, settings(group_by_length=grouped, batch_size=8))
        return sum(int(lengths[b].max()) * len(b) - int(lengths[b].sum()) for step in plan.steps for b in step)

    assert padding(True) < padding(False) / 10


def test_the_widest_batch_comes_first() -> None:
    lengths = np.random.default_rng(1).integers(1, 200, size=64)
    plan = plan_steps(lengths, 2, settings())
    assert max(int(lengths[row]) for batch in plan.steps[0] for row in batch) == lengths.max()


def test_padding_stands_on_the_right_and_carries_no_loss() -> None:
    batch = collate(table([1, 2, 3], [4, 5]), np.array([0, 1]), pad=0)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert batch.labels.tolist() == [[2, 3, IGNORED], [5, IGNORED, IGNORED]]
    assert (batch.real_tokens, batch.rows) == (5, [1, 2])


def test_a_dataset_that_starts_later_gives_the_later_steps() -> None:
    rows = table(*[[i, i] for i in range(1, 9)])
    plan = plan_steps(rows.lengths, 1, settings(batch_size=2, accumulation=1))
    whole, rest = StepDataset(rows, plan, 0), StepDataset(rows, plan, 0, start=2)
    assert len(rest) == len(whole) - 2
    assert rest[0][0].rows == whole[2][0].rows
