"""The protocol's requests: what one side writes the other reads, and what is not available is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.data.conversation import Conversation
from llsflow.models.protocol import (
    ChatRequest,
    CompletionRequest,
    conversation_of,
    format_of,
    read_request,
    request_body,
    sampling_of,
)
from llsflow.schema.inference import GrammarResponseFormat, JsonSchemaResponseFormat, ResponseFormat
from llsflow.schema.sampling import (
    GreedySamplingStrategy,
    SamplingParams,
    TopKSamplingStrategy,
    TopPSamplingStrategy,
)

ASKED = [{"role": "user", "content": "hi"}]
GOOD: dict[str, Any] = {"model": "m", "messages": ASKED}

FORMATS = st.one_of(
    st.none(),
    st.builds(
        JsonSchemaResponseFormat,
        json_schema=st.dictionaries(st.text(), st.one_of(st.booleans(), st.text()), max_size=3),
    ),
    st.builds(
        GrammarResponseFormat,
        bnf=st.dictionaries(st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True), st.just('"a" | "b"'), min_size=1),
    ),
)

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


def read(body: object) -> ChatRequest:
    return read_request(body, ChatRequest)


@settings(max_examples=200, derandomize=True)
@given(sampling=SAMPLING, seed=st.one_of(st.none(), st.integers(0, 2**31)), wanted=FORMATS)
def test_what_is_asked_is_what_is_read(
    sampling: SamplingParams, seed: int | None, wanted: ResponseFormat | None
) -> None:
    request = read(request_body("m", ASKED, sampling, seed, wanted))
    assert format_of(request) == wanted
    found = sampling_of(request)
    if isinstance(found.strategy, TopPSamplingStrategy) and found.strategy.top_p == 1:
        found = found.model_copy(update={"strategy": found.strategy.model_copy(update={"top_p": None})})
    assert found == sampling
    assert (request.seed, conversation_of(request)) == (seed, Conversation(ASKED))  # type: ignore[arg-type]


def test_defaults_are_the_protocols() -> None:
    assert sampling_of(read(GOOD)) == SamplingParams(strategy=TopPSamplingStrategy(temperature=1.0, top_p=None))
    nothing = {"stream": False, "n": 1, "tools": [], "top_k": -1, "stop": [], "user": "me", "logprobs": None}
    assert sampling_of(read({**GOOD, **nothing})) == sampling_of(read(GOOD))
    assert sampling_of(read({**GOOD, "stop": "x", "max_completion_tokens": 3})).stop == ["x"]
    greedy = read({**GOOD, "temperature": 0, "top_p": 0.5, "top_k": 3})
    assert sampling_of(greedy).strategy == GreedySamplingStrategy()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stream": "yes"}, "stream: .*true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options is for streams"),
        ({"response_format": {"type": "xml"}}, "response_format.*: found 'xml', allowed: .*json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema: is missing"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs.*regex"),
        (
            {"structured_outputs": {"grammar": "root ::= x"}, "response_format": {"type": "json_object"}},
            "send one of them",
        ),
        ({"n": 2}, "n: not available"),
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
        read({**GOOD, **change})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"n: .*echo: .*(temperature: .*max_tokens: |max_tokens: .*temperature: )"):
        read({**GOOD, "n": 3, "echo": True, "temperature": 1000, "max_tokens": 0})
    with pytest.raises(ValueError, match="not a JSON object"):
        read([GOOD])


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
        conversation_of(read({**GOOD, "messages": messages}))


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = read({**GOOD, "messages": [{"role": "user", "content": parts}]})
    assert conversation_of(request).messages == [{"role": "user", "content": "ab"}]


def test_formats_are_the_protocols_and_vllms() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    given_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True, "description": "y"}}
    assert format_of(read({**GOOD, "response_format": given_})) == JsonSchemaResponseFormat(json_schema=schema)
    anything = read({**GOOD, "response_format": {"type": "json_object"}})
    assert format_of(anything) == JsonSchemaResponseFormat(json_schema={"type": "object"})
    assert format_of(read({**GOOD, "response_format": {"type": "text"}})) is None
    grammar = 'root ::= first |\n  last\nfirst ::= "a"\nlast ::= [b-z]'
    rules = {"root": "first |\n  last", "first": '"a"', "last": "[b-z]"}
    assert format_of(read({**GOOD, "structured_outputs": {"grammar": grammar}})) == GrammarResponseFormat(bnf=rules)
    with pytest.raises(ValueError, match="no rules"):
        format_of(read({**GOOD, "structured_outputs": {"grammar": "yes or no"}}))


def test_a_text_is_gone_on_with() -> None:
    request = read_request({"model": "m", "prompt": "Once", "temperature": 0, "echo": False}, CompletionRequest)
    assert (request.prompt, sampling_of(request).strategy) == ("Once", GreedySamplingStrategy())
    with pytest.raises(ValueError, match="prompt: is missing"):
        read_request({"model": "m"}, CompletionRequest)
    with pytest.raises(ValueError, match="messages: not available"):
        read_request({**GOOD, "prompt": "x"}, CompletionRequest)
