"""BM25 by its formula, whatever the order of the items and the script of their words."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.errors import ConfigError
from llsflow.models.bm25 import K1, B, bm25, words
from llsflow.rerank import rank_by_words, rerank
from llsflow.schema.rerank import RerankRequest

ITEMS = ["the cat sat", "the dog sat on the mat", "a bird"]


def test_worked_arithmetic() -> None:
    """Of 3 items, 3, 6 and 2 words long, 2 hold "sat"; one holds "the" twice."""
    mean = 11 / 3
    rare = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    common = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def part(idf: float, times: int, length: int) -> float:
        return idf * times * (K1 + 1) / (times + K1 * (1 - B + B * length / mean))

    assert bm25("The DOG", ITEMS) == pytest.approx([part(common, 1, 3), part(common, 2, 6) + part(rare, 1, 6), 0.0])
    assert bm25("sat sat sat", ITEMS) == bm25("sat", ITEMS), "a word of the query counts once"


TEXTS = st.lists(st.text(st.sampled_from("ab é日本 ,"), max_size=12), min_size=1, max_size=6)


@given(query=st.text(st.sampled_from("ab é日 "), max_size=8), items=TEXTS, data=st.data())
def test_scores_go_with_the_items(query: str, items: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(items))))
    scores = bm25(query, items)
    assert bm25(query, [items[place] for place in order]) == pytest.approx([scores[place] for place in order])
    shared = [bool({*words(query)} & {*words(item)}) for item in items]
    assert [score > 0 for score in scores] == shared


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_has_the_words_that_any_text_has(text: str) -> None:
    assert words(text) == words(f"{text} é")[:-1] == re.findall(r"\w+", text.lower())


def test_the_words_of_a_long_query_add_up() -> None:
    query = "the the cat dog sat on mat a bird house"
    items = [*ITEMS, f"{query} {query}"]
    alone = [bm25(word, items) for word in set(words(query))]
    assert bm25(query, items) == pytest.approx([sum(scores) for scores in zip(*alone, strict=True)])


def test_words_of_many_scripts() -> None:
    assert words("Straße, ＦＵＬＬ width—naïve_x 3,5") == ["strasse", "full", "width", "naïve_x", "3", "5"]
    assert words("東京タワー and 서울") == [*"東京タワー", "and", *"서울"]
    assert bm25("京都", ["東京の塔", "京都の寺"])[1] > bm25("京都", ["東京の塔", "京都の寺"])[0] > 0


def request(**changes: object) -> RerankRequest:
    return RerankRequest.model_validate({"model": "bm25", "query": "dog", "items": ITEMS, **changes})


def test_the_order_is_by_score_then_by_place_and_cut() -> None:
    assert [one.index for one in rerank(request(), rank_by_words).data] == [1, 0, 2]
    assert [one.index for one in rerank(request(max_num_results=1), rank_by_words).data] == [1]
    assert [one.index for one in rerank(request(query="nothing"), rank_by_words).data] == [0, 1, 2]


def test_parts_of_text_are_read_and_images_are_refused_with_their_places() -> None:
    parts = [{"type": "text", "text": item} for item in ITEMS]
    assert rerank(request(items=parts, query=parts[1]), rank_by_words).data[0].index == 1
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(ConfigError) as told:
        rerank(request(items=["x", image, "y", image]), rank_by_words)
    assert [mistake.where for mistake in told.value.mistakes] == ["items.1", "items.3"]
    assert "bm25 reads text" in told.value.mistakes[0].message
