"""The protocol's requests: what one side writes the other reads, and what is not available is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.models.protocol import conversation_of, read_request, request_body, sampling_of
from llsflow.schema.sampling import (
    GreedySamplingStrategy,
    SamplingParams,
    TopKSamplingStrategy,
    TopPSamplingStrategy,
)

ASKED = [{"role": "user", "content": "hi"}]
GOOD: dict[str, Any] = {"model": "m", "messages": ASKED}

STRATEGIES = st.one_of(
    st.just(GreedySamplingStrategy()),
    st.builds(
        TopPSamplingStrategy,
        temperature=st.floats(0.01, 100),
        top_p=st.one_of(st.none(), st.floats(0.01, 1, exclude_max=True)),
    ),
    st.builds(TopKSamplingStrategy, top_k=st.integers(1, 1000)),
)
SAMPLING = st.builds(
    SamplingParams,
    strategy=STRATEGIES,
    max_tokens=st.one_of(st.none(), st.integers(1, 10_000)),
    repetition_penalty=st.floats(0.01, 2),
    stop=st.one_of(st.none(), st.lists(st.text(min_size=1), min_size=1, max_size=4)),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(sampling=SAMPLING, seed=st.one_of(st.none(), st.integers(0, 2**31)))
def test_what_is_asked_is_what_is_read(sampling: SamplingParams, seed: int | None) -> None:
    request = read_request(request_body("m", ASKED, sampling, seed))
    read = sampling_of(request)
    if isinstance(read.strategy, TopPSamplingStrategy) and read.strategy.top_p == 1:
        read = read.model_copy(update={"strategy": read.strategy.model_copy(update={"top_p": None})})
    assert read == sampling
    assert (request.seed, conversation_of(request)) == (seed, ASKED)


def test_defaults_are_the_protocols() -> None:
    assert sampling_of(read_request(GOOD)) == SamplingParams(strategy=TopPSamplingStrategy(temperature=1.0, top_p=None))
    nothing = {"stream": False, "n": 1, "tools": [], "top_k": -1, "stop": [], "user": "me", "logprobs": None}
    assert sampling_of(read_request({**GOOD, **nothing})) == sampling_of(read_request(GOOD))
    assert sampling_of(read_request({**GOOD, "stop": "x", "max_completion_tokens": 3})).stop == ["x"]
    greedy = read_request({**GOOD, "temperature": 0, "top_p": 0.5, "top_k": 3})
    assert sampling_of(greedy).strategy == GreedySamplingStrategy()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stream": True}, "stream: not available"),
        ({"n": 2}, "n: not available"),
        ({"tools": [{}]}, "tools: not available"),
        ({"frequency_penalty": 0.1}, "frequency_penalty: not available"),
        ({"temprature": 1}, "temprature: not available"),
        ({"temperature": -1}, "temperature: .*-1"),
        ({"temperature": "hot"}, "temperature: .*hot"),
        ({"top_p": 0}, "top_p: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "the same thing"),
        ({"top_k": 5, "top_p": 0.5}, "top_k and top_p together"),
        ({"top_k": 5, "temperature": 0.5}, "top_k takes temperature 1 or 0"),
        ({"stop": list("abcde")}, "stop: "),
        ({"stop": ""}, "stop.0: "),
        ({"messages": []}, "messages: "),
        ({"messages": None}, "messages: is missing"),
        ({"seed": -1}, "seed: "),
        ({"repetition_penalty": 3}, "repetition_penalty: "),
    ],
)
def test_refusals_name_the_field(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_request({**GOOD, **change})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"n: .*stream: .*(temperature: .*max_tokens: |max_tokens: .*temperature: )"):
        read_request({**GOOD, "n": 3, "stream": True, "temperature": 1000, "max_tokens": 0})
    with pytest.raises(ValueError, match="not a JSON object"):
        read_request([GOOD])


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "robot", "content": "x"}], r"messages\[0\].role is 'robot'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "image_url"),
        ([{"role": "user"}], "a text is needed"),
    ],
)
def test_messages_that_no_template_takes(messages: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        conversation_of(read_request({**GOOD, "messages": messages}))


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = read_request({**GOOD, "messages": [{"role": "user", "content": parts}]})
    assert conversation_of(request) == [{"role": "user", "content": "ab"}]
