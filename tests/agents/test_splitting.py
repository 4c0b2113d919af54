"""Splitting: nothing is lost, the borders are those that readers see, and the time grows with the length."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llsflow.agents.splitting import split


def visible(text: str) -> str:
    return "".join(text.split())


PIECES = st.sampled_from(
    ["a", "word", "Rome is old. ", "# Rome\n", "\n", "\n\n", "  ", "京都。", "e\u0301", "🇮👍🏽", "\r\n"]
)


@given(text=st.lists(PIECES | st.text(max_size=4), max_size=60).map("".join), most=st.integers(1, 40))
@example(text=" " * 50 + "x", most=3)
@example(text="Rome is old. a  ", most=14)
@example(text=" 00000000000", most=11)
@example(text="a\n\n\n \n# b\n\n# c\n\nd", most=5)
def test_no_text_is_lost_and_no_passage_is_too_long(text: str, most: int) -> None:
    passages = split(text, most)
    assert visible("".join(passages)) == visible(text)
    assert all(passage.strip() and len(passage) <= most for passage in passages)
    assert len(text.strip()) > most or len(passages) == bool(text.strip())


@given(st.lists(st.text("ab", min_size=1, max_size=10), min_size=1, max_size=40), st.integers(10, 40))
def test_no_word_is_cut_that_fits(words: list[str], most: int) -> None:
    assert " ".join(split(" ".join(words), most)).split() == words


@pytest.mark.parametrize(
    ("text", "most", "passages"),
    [
        ("one.\n\ntwo.\n\nthree.", 12, ["one.\n\ntwo.", "three."]),
        ("one.\n \ntwo.\r\n\r\nthree.", 6, ["one.", "two.", "three."]),
        # a paragraph that fits stays whole
        ("one.\n\n" + "two three four.", 16, ["one.", "two three four."]),
        ("one\ntwo three\nfour", 14, ["one\ntwo three", "four"]),
        ("One two. Three four. Five", 22, ["One two. Three four.", "Five"]),
        ("京都の寺。東京の塔。", 7, ["京都の寺。", "東京の塔。"]),
        ('He said "no." Then', 15, ['He said "no."', "Then"]),
        ("one two three", 9, ["one two", "three"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        # indentation is kept
        ("a:\n\n    b: 1\n    c: 2", 14, ["a:", "    b: 1", "    c: 2"]),
        ("  one", 8, ["  one"]),
        (" \n\n ", 8, []),
    ],
)
def test_passages_end_where_readers_see_an_end(text: str, most: int, passages: list[str]) -> None:
    assert split(text, most) == passages


@pytest.mark.parametrize("one", ["e\u0301", "👍🏽", "👩\u200d🔬", "\ud83d\ude00", "ก็"])
def test_no_character_is_taken_apart(one: str) -> None:
    assert all(len(passage) % len(one) == 0 for passage in split(one * 50, 10))
    assert "".join(split(one * 50, 10)) == one * 50


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("Rome is old.\n\nOslo\n\nOslo is not that old.", ["Rome is old.", "Oslo\n\nOslo is not that old."]),
        ("Rome is old.\n\n# A\n\n## B\n\nOslo is not.", ["Rome is old.", "# A\n\n## B\n\nOslo is not."]),
        ("Rome is old.\n\n# Oslo?\n\nOslo is not.", ["Rome is old.", "# Oslo?\n\nOslo is not."]),
        ("Rome is old.\n# Oslo\nOslo is not that old.", ["Rome is old.", "# Oslo\nOslo is not that old."]),
        # a list is no row of headings
        (
            "Rome.\n\na\n\nb\n\nc\n\nd\n\ne\n\nOslo is not that old.",
            ["Rome.\n\na\n\nb\n\nc\n\nd\n\ne", "Oslo is not that old."],
        ),
        # a heading over something long goes with its beginning
        ("Oslo\n\nOslo is not that old by far.", ["Oslo\n\nOslo is not that old", "by far."]),
    ],
)
def test_a_heading_goes_with_what_follows(text: str, passages: list[str]) -> None:
    assert split(text, 28) == passages


SENTENCE = "The quick brown fox jumps over the lazy dog. "


@pytest.mark.parametrize(
    "text",
    [
        (SENTENCE * 20 + "\n\n") * 3_300,
        SENTENCE * 66_000,
        "a" * 3_000_000,
        " " * 3_000_000 + "x",
        ("x" + " " * 5_000) * 600,
        '."' * 1_500_000,
        "e" + "\u0301" * 3_000_000,
        ("a.\n\nb\n\nc\n" + "w" * 5_000 + " ") * 600,
        ("# H\n\n" * 3 + SENTENCE * 60) * 1_000,
    ],
    ids=["prose", "one paragraph", "one word", "blanks", "gaps", "stops", "marks", "small and big", "headings"],
)
def test_three_megabytes_are_split_in_seconds(text: str) -> None:
    """Where the time grew with the square, it would be hours: the bound, in CPU time, is no measure of the machine."""
    begun = time.process_time()
    passages = split(text, 1_500)
    assert time.process_time() - begun < 300
    assert sum(map(len, passages)) <= len(text)
