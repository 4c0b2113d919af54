"""Passages that a benchmark's rows share with training data: where they begin, and what is too common to tell."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.data.contamination import COMMON_ROWS, PASSAGE_WORDS, shared_passages

WORDS = [f"w{number}" for number in range(40)]


def row(*words: str) -> dict[str, Any]:
    return {"question": " ".join(words), "answer": "x"}


@pytest.mark.parametrize(("length", "found"), [(PASSAGE_WORDS - 1, []), (PASSAGE_WORDS, [1]), (30, [1])])
def test_a_passage_has_so_many_words_wherever_it_stands(length: int, found: list[int]) -> None:
    training = [row("other"), row("before", *WORDS[:length], "after")]
    assert shared_passages(training, [row("nothing"), row("so", *WORDS[:length])]) == found


def test_case_punctuation_and_columns_do_not_hide_it() -> None:
    said = ", ".join(word.upper() for word in WORDS[:PASSAGE_WORDS])
    training = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"({said})!"}]}]
    assert shared_passages(training, [row(*WORDS[:PASSAGE_WORDS])]) == [0]


def test_a_passage_does_not_reach_over_two_texts() -> None:
    training = [row(*WORDS[:PASSAGE_WORDS])]
    judged = [{"question": " ".join(WORDS[:6]), "answer": " ".join(WORDS[6:PASSAGE_WORDS])}]
    assert shared_passages(training, judged) == []


@pytest.mark.parametrize(("times", "found"), [(COMMON_ROWS, [0]), (COMMON_ROWS + 1, [])])
def test_the_tasks_own_phrases_tell_nothing(times: int, found: list[int]) -> None:
    training = [row(*WORDS[:PASSAGE_WORDS], str(number)) for number in range(times)]
    assert shared_passages(training, [row(*WORDS[:PASSAGE_WORDS], "new")]) == found


def test_a_passage_that_one_row_repeats_counts_once() -> None:
    training = [row(*WORDS[:PASSAGE_WORDS] * (COMMON_ROWS + 5))]
    assert shared_passages(training, [row(*WORDS[:PASSAGE_WORDS])]) == [0]
