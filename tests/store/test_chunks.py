"""Packing rows into chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llsflow.store.chunks import MAX_BYTES, MAX_ROWS, pack
from llsflow.store.rows import EMPTY, chain

SIZES = st.integers(2, 40) | st.sampled_from([MAX_BYTES // 2, MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, 3 * MAX_BYTES])


@given(st.lists(SIZES, max_size=40), st.integers(0, 10**12))
def test_chunks_hold_the_lines_in_order(sizes: list[int], first_row: int) -> None:
    lines = [b"x" * size for size in sizes]
    chunks = pack(lines, first_row, chain(EMPTY, [b"before"]))
    assert [line for chunk in chunks for line in chunk.payload.split(b"\n")] == lines
    row, before = first_row, [b"before"]
    for chunk in chunks:
        inside = chunk.payload.split(b"\n")
        assert (chunk.first_row, chunk.num_rows) == (row, len(inside))
        before += inside
        assert chunk.digest == chain(EMPTY, before)
        assert len(inside) <= MAX_ROWS
        assert len(chunk.payload) <= MAX_BYTES or len(inside) == 1
        row += len(inside)


def test_chunks_are_as_long_as_they_may_be() -> None:
    assert [chunk.num_rows for chunk in pack([b"{}"] * 2500, 0, EMPTY)] == [1000, 1000, 500]
    # 64 lines of 1023 bytes and the newline after each
    assert [chunk.num_rows for chunk in pack([b"x" * 1023] * 65, 0, EMPTY)] == [64, 1]
    assert [chunk.num_rows for chunk in pack([b"x" * (MAX_BYTES - 11), b"x" * 10], 0, EMPTY)] == [2]
    assert [chunk.num_rows for chunk in pack([b"x" * (MAX_BYTES - 11), b"x" * 11], 0, EMPTY)] == [1, 1]
    assert pack([], 0, EMPTY) == []
