"""Batches: every example once an epoch, the same for the same seed, packed as full as can be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.data.tokens import TokenTable
from llsflow.losses.supervised import IGNORED
from llsflow.training.batches import BatchSettings, StepPlan, plan_steps
from llsflow.training.examples import ExampleTable, StepDataset


def settings(**changes: object) -> BatchSettings:
    base = {
        "batch_size": 4,
        "micro_batches": 2,
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
    chosen = settings(batch_size=batch_size, micro_batches=accumulation, shuffle=shuffle, group_by_length=grouped)
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
    order = flat_rows(first)
    assert order == flat_rows(again)
    assert flat_rows(plan_steps(lengths, 2, settings(seed=4))) != order
    assert order[:100] != order[100:]


def test_without_shuffle_the_files_order_is_kept() -> None:
    plan = plan_steps(np.array([9, 1, 5, 3, 7]), 1, settings(shuffle=False, batch_size=2, micro_batches=1))
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


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=200),
    most=st.integers(1, 120),
    batch_size=st.integers(1, 3),
    shuffle=st.booleans(),
)
def test_packed_sequences_hold_whole_rows_and_no_more_tokens_than_allowed(
    lengths: list[int], most: int, batch_size: int, shuffle: bool
) -> None:
    sizes = np.array(lengths)
    chosen = settings(packed_tokens=most, batch_size=1, micro_batches=1, shuffle=shuffle, group_by_length=False)
    sequences = [step[0] for step in plan_steps(sizes, 1, chosen).steps]
    flat = [int(row) for sequence in sequences for row in sequence]
    assert sorted(flat) == list(range(len(lengths)))
    assert shuffle or flat == list(range(len(lengths)))
    assert all(int(sizes[sequence].sum()) <= most or len(sequence) == 1 for sequence in sequences)
    together = plan_steps(sizes, 1, dataclasses.replace(chosen, batch_size=batch_size)).steps
    assert len(together) == -(-len(sequences) // batch_size)


def test_packed_sequences_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=2000)
    plan = plan_steps(lengths, 1, settings(packed_tokens=512, batch_size=1, micro_batches=1, group_by_length=False))
    assert lengths.sum() / (512 * len(plan.steps)) > 0.99


def flat_rows(plan: StepPlan) -> list[int]:
    return [int(row) for step in plan.steps for batch in step for row in batch]


def test_a_micro_batch_holds_its_rows_without_padding() -> None:
    batch = ExampleTable(table([1, 2, 3], [4, 5])).collate(np.array([1, 0]))
    assert batch.input_ids.tolist() == [4, 5, 1, 2, 3]
    assert batch.labels.tolist() == [5, IGNORED, 2, 3, IGNORED]
    assert batch.segments.positions.tolist() == [[0, 1, 0, 1, 2]]
    assert (batch.tokens, batch.weight, batch.rows) == (5, 3, [2, 1])


def test_a_pair_is_two_rows_with_its_reference() -> None:
    pairs = table([1, 2], [1, 3], [4, 5, 6], [4, 7])
    pairs = dataclasses.replace(pairs, numbers=np.array([1, 1, 2, 2]))
    reference = np.array([[-1.0, -2.0], [-3.0, -4.0]], dtype=np.float32)
    examples = ExampleTable(pairs, paired=True, reference=reference)
    assert examples.lengths.tolist() == [4, 5]
    batch = examples.collate(np.array([1]))
    # every token of these rows is under loss: there is no prompt to share
    assert batch.input_ids.tolist() == [4, 5, 6, 4, 7]
    prompted = dataclasses.replace(pairs, loss_mask=np.array([0, 1, 0, 1, 0, 0, 1, 0, 1], dtype=np.bool_))
    # the last token before the answers, which predicts them, stands in both
    prompted = dataclasses.replace(prompted, input_ids=np.array([1, 2, 1, 3, 4, 5, 6, 4, 7], dtype=np.int32))
    assert ExampleTable(prompted, paired=True).collate(np.array([1])).input_ids.tolist() == [4, 5, 6, 4, 7]
    assert batch.reference is not None
    assert (batch.reference.tolist(), batch.weight, batch.rows) == ([[-3.0, -4.0]], 1, [2])


def test_a_dataset_that_starts_later_gives_the_later_steps() -> None:
    rows = ExampleTable(table(*[[i, i] for i in range(1, 9)]))
    plan = plan_steps(rows.lengths, 1, settings(batch_size=2, micro_batches=1))
    whole, rest = StepDataset(rows, plan), StepDataset(rows, plan, start=2)
    assert len(rest) == len(whole) - 2
    assert rest[0].micro_batches[0].rows == whole[2].micro_batches[0].rows


def test_devices_share_a_step_and_none_is_without_a_batch() -> None:
    rows = ExampleTable(table(*[[i, i] for i in range(1, 8)]))
    plan = plan_steps(rows.lengths, 1, settings(batch_size=2, micro_batches=3))
    devices = [StepDataset(rows, plan, rank=rank, world=3) for rank in range(3)]
    shares = [device[step].micro_batches for step in range(2) for device in devices]
    assert [len(share) for share in shares] == [1] * 6
    assert sorted(row for share in shares for micro in share if micro.weight for row in micro.rows) == list(range(1, 8))
    assert [share[0].weight for share in shares[3:]] == [1, 0, 0]
