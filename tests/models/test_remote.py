"""Models behind endpoints: what is sent, what is tried again, what is told, and how many at once."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from llsflow.errors import ConfigError, NotFoundError, Stopped, UnavailableError
from llsflow.models import endpoint as endpoints
from llsflow.models.generation import Generation
from llsflow.models.remote import RemoteModel
from llsflow.schema.inference import GrammarResponseFormat, JsonSchemaResponseFormat
from llsflow.schema.models import ModelConfig
from llsflow.schema.sampling import SamplingParams, TopKSamplingStrategy, TopPSamplingStrategy
from tests.models.small import ask
from tests.patience import PATIENCE_SECONDS
from tests.scripted import Answer, Scripted, scripted

GREEDY = SamplingParams(max_tokens=8)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT_SECONDS", 0.01)


def model(script: Scripted, **changes: Any) -> RemoteModel:
    config = {"model_id": "mine", "endpoint": {"base_url": script.url, **changes}}
    return RemoteModel.of(ModelConfig.model_validate(config))


def places(count: int) -> dict[int, Any]:
    return {place: ask(f"q{place}")[0] for place in range(count)}


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        (GREEDY, {"temperature": 0, "max_tokens": 8}),
        (SamplingParams(), {"temperature": 0}),
        (
            SamplingParams(strategy=TopPSamplingStrategy(temperature=0.7, top_p=0.9)),
            {"temperature": 0.7, "top_p": 0.9},
        ),
        (
            SamplingParams(strategy=TopPSamplingStrategy(temperature=0.7, top_p=None)),
            {"temperature": 0.7, "top_p": 1.0},
        ),
        (SamplingParams(strategy=TopKSamplingStrategy(top_k=5)), {"temperature": 1, "top_k": 5}),
        (SamplingParams(repetition_penalty=1.3), {"temperature": 0, "repetition_penalty": 1.3}),
        (SamplingParams(stop=["END", "."]), {"temperature": 0, "stop": ["END", "."]}),
    ],
)
def test_every_field_of_the_sampling_arrives(sampling: SamplingParams, sent: dict[str, Any]) -> None:
    with scripted(lambda body, _: "yes") as script:
        made = model(script).answer({4: ask("hi")[0]}, sampling)
    assert script.sent == [{"model": "mine", "messages": ask("hi")[0].messages, **sent}]
    assert made == {4: Generation("yes", 3, "stop", json.dumps(ask("hi")[0].messages))}


def test_formats_seeds_and_the_name_there_arrive() -> None:
    with scripted(lambda body, _: "{}") as script:
        there = model(script, model="org/other", at_once=1)
        there.answer(places(2), GREEDY, seed=40, response_format=JsonSchemaResponseFormat(json_schema=SCHEMA))
        there.answer({0: ask("x")[0]}, GREEDY, response_format=GrammarResponseFormat(bnf={"root": '"a"'}))
    assert [(body["model"], body.get("seed")) for body in script.sent] == [
        ("org/other", 40),
        ("org/other", 41),
        ("org/other", None),
    ]
    assert script.sent[0]["response_format"]["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
    assert script.sent[2]["structured_outputs"] == {"grammar": 'root ::= "a"\n'}


def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-very-secret")
    with scripted(lambda body, _: "yes") as script:
        there = model(script, api_key_env="THEIR_KEY")
        there.answer(places(1), GREEDY)
    assert script.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in repr(there) + json.dumps(script.sent)
    monkeypatch.delenv("THEIR_KEY")
    with pytest.raises(ConfigError, match="THEIR_KEY is not set"):
        model(script, api_key_env="THEIR_KEY")


@pytest.mark.parametrize("status", [408, 424, 429, 498, 500, 503, 520, 524])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with scripted(lambda body, number: Answer("busy", status) if number < 2 else "yes") as script:
        made = model(script).answer(places(1), GREEDY)
    assert (made[0].text, len(script.sent)) == ("yes", 3)


def test_the_server_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def remembered(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(endpoints, "pause", remembered)
    with scripted(lambda body, number: Answer("wait", 429, {"Retry-After": "7"}) if number == 0 else "yes") as script:
        assert model(script).answer(places(1), GREEDY)[0].text == "yes"
    assert waited == [7.0]


def test_a_row_that_is_refused_or_not_answered_sinks_no_other() -> None:
    def say(body: dict[str, Any], _: int) -> Any:
        match body["messages"][0]["content"]:
            case "q1":
                return Answer("q1 is too long", 400)
            case "q3":
                return Answer("overloaded", 503)
            case "q5":
                return Answer(body={"nothing": "here"})
        return "yes"

    told: list[int] = []
    with scripted(say) as script:
        made = model(script, retries=1, at_once=2).answer(
            places(8), GREEDY, on_generation=lambda place, _: told.append(place)
        )
    errors = {place: generation.error for place, generation in made.items() if generation.error}
    assert errors == {
        1: "q1 is too long",
        3: "overloaded (2 tries)",
        5: "it answered with something that is no completion (2 tries)",
    }
    assert sorted(told) == list(range(8))


def test_an_endpoint_that_is_gone_ends_it_and_what_was_answered_was_told() -> None:
    """Failures are told of no row while it may be the endpoint: another run is to ask these rows again."""
    told: list[int] = []
    with scripted(lambda body, number: "yes" if number < 3 else Answer("down", 503)) as script:
        there = model(script, retries=0, at_once=1)
        with pytest.raises(UnavailableError, match=r"does not answer: down; 3 rows are kept, and the same command"):
            there.answer(places(100), GREEDY, on_generation=lambda place, _: told.append(place))
        assert told == [0, 1, 2]
        assert len(script.sent) < 20
        with pytest.raises(UnavailableError, match=r"does not answer: down$"):
            there.answer(places(2), GREEDY)
    with pytest.raises(UnavailableError, match="does not answer"):
        model(script, retries=0).answer(places(1), GREEDY)


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (401, UnavailableError, "refuses a request without a key: set api_key_env"),
        (402, UnavailableError, r"\(HTTP 402\): no such model"),
        (403, UnavailableError, r"\(HTTP 403\): no such model"),
        (404, NotFoundError, "no such model"),
    ],
)
def test_what_no_row_can_pass_ends_it_at_once(status: int, error: type[Exception], sentence: str) -> None:
    with scripted(lambda body, _: Answer("no such model", status)) as script:
        with pytest.raises(error, match=sentence):
            model(script, at_once=1).answer(places(50), GREEDY)
        assert len(script.sent) == 1


@pytest.mark.parametrize("status", [401, 402])
def test_a_key_that_is_refused_in_a_body_of_200_ends_it(status: int) -> None:
    with scripted(lambda *_: Answer(body={"error": {"message": "no credit", "code": status}})) as script:
        with pytest.raises(UnavailableError, match=rf"\(HTTP {status}\): no credit"):
            model(script, at_once=1).answer(places(5), GREEDY)
        assert len(script.sent) == 1


@pytest.mark.parametrize(("first", "words"), [(0, "Input was flagged by moderation"), (1, "forbidden topic")])
def test_a_row_that_a_moderation_refuses_is_that_rows(first: int, words: str) -> None:
    """403: of a moderation by its words, or behind an answer, which shows that the key is good."""

    def say(body: dict[str, Any], _: int) -> Any:
        return Answer(words, 403) if body["messages"][0]["content"] == f"q{first}" else "yes"

    with scripted(say) as script:
        made = model(script, at_once=1).answer(places(3), GREEDY)
    assert [made[place].error for place in range(3)] == [
        f"HTTP 403: {words}" if place == first else None for place in range(3)
    ]


def test_no_more_at_once_than_allowed_whoever_asks() -> None:
    several = threading.Barrier(3, timeout=PATIENCE_SECONDS)

    def say(body: dict[str, Any], number: int) -> str:
        if number < 3:
            several.wait()  # passes only when three requests are under way
        return str(body["messages"][0]["content"])

    with scripted(say) as script:
        there = model(script, at_once=3)
        made: dict[str, Any] = {}
        threads = [
            threading.Thread(target=lambda name=name: made.update({name: there.answer(places(20), GREEDY)}))
            for name in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert script.most_at_once == 3
    assert [made["a"][place].text for place in range(20)] == [f"q{place}" for place in range(20)]
    assert made["a"] == made["b"]


def test_it_stops_when_it_is_to() -> None:
    hold = threading.Event()
    with scripted(lambda body, _: hold.wait(PATIENCE_SECONDS) and "yes") as script:
        with pytest.raises(Stopped):
            model(script, at_once=2).answer(places(50), GREEDY, stopping=lambda: len(script.sent) == 2)
        hold.set()
    assert len(script.sent) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"base_url": "ftp://x"}, "is no address"),
        ({"base_url": "https://me:secret@x/v1"}, "must not hold a password"),
        ({"api_key_env": "sk-not-a-name"}, "is no name of an environment variable"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as told:
        ModelConfig.model_validate({"model_id": "m", "endpoint": {"base_url": "http://x/v1", **change}})
    assert "sk-not-a-name" not in str(told.value.errors()[0]["msg"])  # type: ignore[attr-defined]
