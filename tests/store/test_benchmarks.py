"""Benchmarks: registered once, with one meaning."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llsflow.errors import ConflictError
from llsflow.store import Store


def test_register_get_list_delete(store: Store) -> None:
    before = datetime.now(UTC)
    first = store.benchmarks.register(
        "b/1", "d:held_out", ["basic::equality", "é\ud800\0"], {"a": {"z": 1, "b": [1.0]}}
    )
    second = store.benchmarks.register("a", "d", ["basic::equality"], {})
    assert store.benchmarks.get("b/1") == first
    assert first.scoring_functions == ["basic::equality", "é\ud800\0"]
    assert list(store.benchmarks.get("b/1").metadata["a"]) == ["z", "b"]  # type: ignore[union-attr]
    assert before <= first.created_at <= datetime.now(UTC)
    assert store.benchmarks.list() == [first, second]
    assert store.benchmarks.delete("b/1") is True
    assert store.benchmarks.delete("b/1") is False
    assert store.benchmarks.get("b/1") is None
    assert store.benchmarks.list() == [second]


def test_registering_again(store: Store) -> None:
    first = store.benchmarks.register("b", "d", ["basic::equality"], {"a": 1})
    assert store.benchmarks.register("b", "d", ["basic::equality"], {"a": 1}) == first
    with pytest.raises(ConflictError, match="'b' is registered with other dataset_id and metadata"):
        store.benchmarks.register("b", "e", ["basic::equality"], {})
    assert store.benchmarks.list() == [first]
