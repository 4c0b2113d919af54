"""Text that grows token by token: told as soon as it is settled, never taken back, without the stop text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.models.local import LocalModel
from llsflow.models.text import GrowingText, StopText, before_stop, text_of

TEXTS = st.text(st.sampled_from("abé€😀 \n"), max_size=24)
STOPS = st.lists(st.text(st.sampled_from("abé€"), min_size=1, max_size=4), max_size=3)


@settings(max_examples=300, derandomize=True)
@given(text=TEXTS, stop=STOPS, data=st.data())
def test_the_parts_are_the_whole(llama: LocalModel, text: str, stop: list[str], data: st.DataObject) -> None:
    (ids,) = llama.encode([text])
    growing = GrowingText(llama.tokenizer, stop)
    ended = StopText(llama.tokenizer, stop) if stop else None
    told, made = "", list[int]()
    for token in ids:
        made.append(token)
        if ended and ended(made):
            break
        if data.draw(st.booleans()):  # several tokens may come between two looks
            told += growing.more(made)
            assert not any(end in told for end in stop)
    whole, stopped = before_stop(text_of(llama.tokenizer, made), stop)
    assert whole.startswith(told)
    assert told + growing.rest(whole) == whole
    assert stopped == any(end in text for end in stop)


def test_what_can_be_told_is_told_at_once(llama: LocalModel) -> None:
    growing = GrowingText(llama.tokenizer, ["END", "."])
    (ids,) = llama.encode(["a€ EN"])
    parts = [growing.more(ids[: n + 1]) for n in range(len(ids))]
    # a token is a byte: the euro sign is told with its third, E and N may become a stop text
    assert parts == ["a", "", "", "€", " ", "", ""]
    (more,) = llama.encode(["a€ ENd"])
    assert growing.more(more) == "ENd"


def test_text_that_was_held_back_is_told_at_the_end(llama: LocalModel) -> None:
    growing = GrowingText(llama.tokenizer, ["END"])
    (ids,) = llama.encode(["xEN"])
    assert growing.more(ids) == "x"
    assert growing.rest("xEN") == "EN"
