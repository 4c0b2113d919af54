"""Passages: which are found for a question, by words and by vectors, in what order, and how much is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from llsflow.agents import passages as module
from llsflow.agents.passages import Embed, Passage, best, passages_of, ranked
from llsflow.agents.splitting import split
from llsflow.models.bm25 import bm25
from llsflow.schema.server import AgentsConfig

CITIES = "Rome is old and big.\n\nOslo is in Norway.\n\nParis has a tower."
FOOD = "Bread is old.\n\nCheese is older.\n\nRome has bread."
TWO = [CITIES, FOOD]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cache", module._Cache(1_000_000))


def config(**changes: Any) -> AgentsConfig:
    return AgentsConfig.model_validate({"passage_characters": 20, "passages": 3, **changes})


def found(query: str, texts: Sequence[str], embed: Embed | None = None, **changes: Any) -> list[tuple[int, int]]:
    async def ask() -> list[Passage]:
        given = config(**changes)
        return await best(query, await passages_of(texts, given), given, embed)

    return [(one.document, one.place) for one in asyncio.run(ask())]


def in_order(query: str, texts: Sequence[str], embed: Embed | None = None) -> list[str]:
    async def ask() -> list[Passage]:
        return await ranked(query, await passages_of(texts, config()), config(), embed)

    return [one.text for one in asyncio.run(ask())]


def test_passages_know_where_they_stand() -> None:
    every = asyncio.run(passages_of(["one two", CITIES], config())).every
    assert every[0] == Passage(1, 1, 1, "one two")
    assert every[1:] == [Passage(2, place, 3, text) for place, text in enumerate(split(CITIES, 20), start=1)]


def test_the_best_stand_in_the_order_of_the_documents() -> None:
    assert in_order("Rome bread", TWO) == ["Rome has bread.", "Bread is old.", "Rome is old and big."]
    assert found("Rome bread", TWO) == [(1, 1), (2, 1), (2, 3)]
    assert found("Rome bread", TWO, passages=1) == [(2, 3)]


def test_scores_are_those_of_all_passages_together() -> None:
    every = [*split(CITIES, 20), *split(FOOD, 20)]
    scores = bm25("old Rome is", every)
    best_first = sorted((place for place in range(6) if scores[place]), key=lambda place: -scores[place])
    assert in_order("old Rome is", TWO) == [every[place] for place in best_first]


def test_equal_ones_keep_their_order() -> None:
    same = "\n\n".join(["Rome is old."] * 5)
    assert found("Rome", [same, same]) == [(1, 1), (1, 2), (1, 3)]


def test_together_they_are_as_long_as_documents_may_be() -> None:
    assert found("Rome bread", TWO, documents_characters=28) == [(2, 1), (2, 3)]
    # the second does not fit, the third does
    assert found("Rome Rome bread", [FOOD, CITIES], documents_characters=35) == [(1, 1), (1, 3)]
    assert sum(len(FOOD.split("\n\n")[place]) for place in (0, 2)) == 28


def test_where_nothing_is_relevant_each_document_begins() -> None:
    assert in_order("summarise", TWO) == []
    assert found("summarise", TWO) == [(1, 1), (1, 2), (2, 1)]
    assert found("", TWO, passages=2) == [(1, 1), (2, 1)]
    assert found("summarise", []) == found("summarise", ["", " \n"]) == []


class Vectors:
    """An embedding model that knows three words."""

    def __init__(self, *more: str) -> None:
        self.asked: list[str] = []
        self.words = ("rome", "bread", "oslo", *more)

    async def __call__(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        self.asked += texts
        return [[3.0 * text.lower().count(word) for word in self.words] for text in texts]


def test_vectors_find_by_their_angle_and_are_made_once() -> None:
    embed = Vectors()
    model = {"embedding_model": "small"}
    assert found("oslo", [*TWO, ""], embed, **model) == [(1, 2)]
    assert embed.asked == ["oslo", *split(CITIES, 20), *split(FOOD, 20)]
    assert found("rome rome rome bread", TWO, embed, **model) == [(1, 1), (2, 1), (2, 3)]
    assert in_order("rome rome rome bread", TWO, embed)[0] == "Rome is old and big."
    embed.asked.clear()
    assert found("towers", TWO, embed, **model) == [(1, 1), (1, 2), (2, 1)]
    assert embed.asked == ["towers"]
    # of another model, and of one that took the name
    assert found("oslo", TWO, embed, embedding_model="other") == [(1, 2)]
    assert found("tower", TWO, Vectors("tower"), **model) == [(1, 3)]


def test_many_passages_are_embedded_in_parts() -> None:
    sizes: list[int] = []

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        sizes.append(len(texts))
        return [[1.0, float("Rome" in text)] for text in texts]

    text = "\n\n".join(["Oslo is not so old."] * 99 + ["Rome is old."])
    assert found("Rome", [text], embed, passages=1) == [(1, 100)]
    assert sizes == [1, 64, 36]


def test_a_text_is_split_once_as_long_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def counted(text: str, most: int) -> list[str]:
        done.append(text)
        return split(text, most)

    monkeypatch.setattr(module, "split", counted)
    found("Rome", TWO)
    found("bread", [*TWO, "new"])
    assert done == [CITIES, FOOD, "new"]
    found("bread", [FOOD], passage_characters=30)
    assert done[3:] == [FOOD]
    # room for two
    monkeypatch.setattr(module, "_cache", module._Cache(250))
    other = CITIES.replace("Rome", "Bonn")
    for text in (CITIES, FOOD, CITIES, other, CITIES, FOOD):
        found("Rome", [text])
    assert done[4:] == [CITIES, FOOD, other, FOOD], "the one not used for longest leaves first"
    assert module._cache._characters <= 250


def test_the_loop_goes_on_while_ten_megabytes_are_searched() -> None:
    text = "\n\n".join(f"Passage {number} is about the city of Oslo and its harbour." * 20 for number in range(9_000))
    times: list[int] = []
    beats: list[int] = []

    async def ask() -> list[Passage]:
        async def beat() -> None:
            while True:
                await asyncio.sleep(0.001)
                times.append(1)

        beating = asyncio.create_task(beat())
        given = AgentsConfig()
        found = await passages_of([text], given)
        beats.append(len(times))
        answer = await best("passage 7777", found, given)
        beats.append(len(times) - beats[0])
        beating.cancel()
        return answer

    assert any("Passage 7777 is" in one.text for one in asyncio.run(ask()))
    assert min(beats) > 5, "there are none or two where the loop waits"


def test_a_passage_that_could_never_fit_is_refused() -> None:
    told = "passage_characters is 1,500, allowed: up to documents_characters, which is 1,000"
    with pytest.raises(ValidationError, match=told):
        AgentsConfig(documents_characters=1_000)
