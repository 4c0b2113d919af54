"""Rows as lines: exact both ways, and digests that do not know batches."""

from __future__ import annotations

import hashlib
import json
import math
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.store.rows import EMPTY, chain, decode_row, encode_row

# every code point, lone surrogates and NUL among them
TEXT = st.text(st.characters(codec=None, categories=None), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=12)
ROWS = st.dictionaries(TEXT, VALUES, max_size=5)


def exact(value: object) -> str:
    """A spelling that tells 1 from 1.0 and true, and the order of keys."""
    return repr(value)


@given(ROWS)
def test_a_row_comes_back_exactly(row: dict[str, object]) -> None:
    line = encode_row(row)
    assert exact(decode_row(line)) == exact(row)
    assert b"\n" not in line
    line.decode("utf-8")


def test_lines_are_compact_utf_8_with_keys_in_their_order() -> None:
    assert encode_row({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'.encode()
    assert encode_row({"": "\ud800\n\0"}) == rb'{"":"\ud800\n\u0000"}'
    assert encode_row(MappingProxyType({"a": 1.0})) == b'{"a":1.0}'


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"a": math.nan}, "which JSON has not"),
        ({"a": [math.inf]}, "which JSON has not"),
        ({"a": b"x"}, "bytes"),
        ({1: "a"}, "the key 1 is not a string"),
    ],
)
def test_what_json_has_not_is_refused(row: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_row(row)


def test_too_deep_a_row_is_refused_in_words() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        encode_row({"a": deep})


def test_the_chain_is_a_hash_of_hashes() -> None:
    assert hashlib.sha256(b"").hexdigest() == EMPTY
    one = hashlib.sha256(bytes.fromhex(EMPTY) + b'{"a":1}').digest()
    two = hashlib.sha256(one + b'{"a":2}').hexdigest()
    assert chain(EMPTY, [encode_row({"a": 1}), encode_row({"a": 2})]) == two
    assert chain(two, []) == two


@settings(max_examples=30)
@given(st.lists(st.dictionaries(TEXT, SCALARS, max_size=3), max_size=12), st.data())
def test_any_batching_has_the_same_digest(rows: list[dict[str, object]], data: st.DataObject) -> None:
    lines = [encode_row(row) for row in rows]
    digest, left = EMPTY, lines
    while left:
        size = data.draw(st.integers(1, len(left)))
        digest, left = chain(digest, left[:size]), left[size:]
    assert digest == chain(EMPTY, lines)


def test_order_and_boundaries_count() -> None:
    a, b = encode_row({"a": 1}), encode_row({"b": 1})
    assert len({chain(EMPTY, lines) for lines in ([a, b], [b, a], [a], [b], [a + b], [a, a], [])}) == 7


def test_json_of_others_reads_the_same() -> None:
    row = {"big": 2**100, "float": 1e16, "nested": {"x": [True, 1, 1.0, None]}}
    assert json.loads(encode_row(row)) == row
