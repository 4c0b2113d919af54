"""Rows on their way into the store: every mistake with its number, and what the good ones count."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.data import row_format
from llsflow.data.checks import check_rows
from llsflow.errors import DataError
from llsflow.schema.datasets import DatasetPurpose
from llsflow.store import decode_row

TRAINING = DatasetPurpose.POST_TRAINING_MESSAGES
PAIR = {"prompt": "abc", "completion": "de"}
PREFERENCE = {"prompt": "abc", "chosen": "de", "rejected": "f"}


def test_rows_are_kept_as_they_came_and_counted() -> None:
    rows: list[dict[str, Any]] = [
        {**PAIR, "weight": 1, "share": 1.0, "nested": {"b": [None, True]}},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yz"}]},
    ]
    batch = check_rows(rows, TRAINING)
    assert [decode_row(line) for line in batch.lines] == rows
    assert (batch.characters, batch.turns) == (8, 4)


def test_every_bad_row_is_told_with_its_number() -> None:
    rows: list[dict[str, Any]] = [PAIR, {}, {"prompt": 1, "completion": "x"}, PAIR, {**PAIR, "x": float("nan")}]
    with pytest.raises(DataError) as caught:
        check_rows(rows, TRAINING)
    assert [mistake.where for mistake in caught.value.mistakes] == ["row 2", "row 3", "row 5"]


def test_of_very_many_bad_rows_twenty_are_told() -> None:
    with pytest.raises(DataError) as caught:
        check_rows([{}] * 1000, TRAINING)
    assert [mistake.where for mistake in caught.value.mistakes] == ["row 1", ""]
    assert "the same in 20 more rows" in caught.value.mistakes[0].message
    assert "reading stopped there" in caught.value.mistakes[-1].message


def test_preferences_and_conversations_do_not_mix() -> None:
    assert check_rows([PREFERENCE, PREFERENCE], TRAINING).turns == 6
    for first, second in ((PREFERENCE, PAIR), (PAIR, PREFERENCE)):
        with pytest.raises(DataError, match=r"row 2: is of .*: a data set holds one of them"):
            check_rows([first, second], TRAINING)
        with pytest.raises(DataError, match="row 1: is of "):
            check_rows([second], TRAINING, trains=row_format(first, TRAINING).turns is None)
    messages = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    assert len(check_rows([PAIR, messages], TRAINING).lines) == 2
