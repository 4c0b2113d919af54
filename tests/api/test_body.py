"""One record from whatever form a request has."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llsflow.api.body import MOST_IGNORED, Body, ignored_header
from llsflow.errors import ConfigError
from llsflow.schema.benchmarks import RegisterBenchmarkRequest, RunEvalRequest
from llsflow.schema.datasets import RegisterDatasetRequest
from llsflow.schema.jobs import SupervisedFineTuneRequest

BENCHMARK = {"benchmark_id": "b", "dataset_id": "d", "scoring_functions": ["s", "t"], "metadata": {"a": [1]}}
CANDIDATE = {"type": "model", "model": "m", "sampling_params": {}}


def body(value: Any, **query: str) -> Body:
    """Return a request with that body and query."""
    return Body(json.dumps(value).encode(), {name: [text] for name, text in query.items()})


@given(st.sets(st.sampled_from(sorted(BENCHMARK))))
def test_any_field_may_stand_in_the_query(in_query: set[str]) -> None:
    texts = {"metadata": '{"a": [1]}', "scoring_functions": "s,t"}
    query = {name: texts.get(name, BENCHMARK[name]) for name in in_query}
    rest = {name: value for name, value in BENCHMARK.items() if name not in in_query}
    taken = body(rest, **query).take(RegisterBenchmarkRequest)  # type: ignore[arg-type]
    assert taken.record == RegisterBenchmarkRequest.model_validate(BENCHMARK)
    assert taken.ignored == ()


@pytest.mark.parametrize("texts", [["s,t"], ["s", "t"], ['["s", "t"]']])
def test_lists_in_the_query(texts: list[str]) -> None:
    query = {"benchmark_id": ["b"], "dataset_id": ["d"], "scoring_functions": texts}
    assert Body(b"", query).take(RegisterBenchmarkRequest).record.scoring_functions == ["s", "t"]


def test_the_body_comes_before_the_query() -> None:
    taken = body(BENCHMARK, benchmark_id="other", typo="x", args="1", kwargs="2").take(RegisterBenchmarkRequest)
    assert taken.record.benchmark_id == "b"
    assert taken.ignored == ("?benchmark_id", "?typo")


def test_a_text_in_the_query_stays_a_text() -> None:
    query = {"benchmark_id": ["5"], "dataset_id": ["true"], "scoring_functions": ["s"]}
    found = Body(b"", query).take(RegisterBenchmarkRequest).record
    assert (found.benchmark_id, found.dataset_id) == ("5", "true")


def test_a_bare_record_is_known_by_its_fields() -> None:
    config = {"eval_candidate": CANDIDATE, "num_examples": 3}
    bare = body(config).take(RunEvalRequest, bare="benchmark_config")
    whole = body({"benchmark_config": config}).take(RunEvalRequest, bare="benchmark_config")
    assert bare.record == whole.record
    with pytest.raises(ConfigError, match=r"^benchmark_config: is missing"):
        body({}).take(RunEvalRequest, bare="benchmark_config")
    with pytest.raises(ConfigError, match=r"^benchmark_config: is missing"):
        body({"benchmark_confg": config}).take(RunEvalRequest, bare="benchmark_config")
    with pytest.raises(ConfigError, match=r"^eval_candidate: is missing"):
        body({"num_examples": 3}).take(RunEvalRequest, bare="benchmark_config")


def test_defaults_are_for_bare_records_only() -> None:
    bare = body({"n_epochs": 1}).take(SupervisedFineTuneRequest, bare="training_config", job_uuid="made-up")
    assert bare.record.job_uuid == "made-up"
    with pytest.raises(ConfigError, match="job_uuid: is missing"):
        body({"training_config": {"n_epochs": 1}}).take(
            SupervisedFineTuneRequest, bare="training_config", job_uuid="made-up"
        )


def test_unknown_fields_are_found_at_any_depth() -> None:
    config = {
        "eval_candidate": {**CANDIDATE, "sampling_params": {"stratgy": {}, "strategy": {"type": "greedy", "top_k": 3}}},
        "scoring_params": {"f": {"type": "basic", "parsing_regexes": []}},
        "extra": {"deep": 1},
    }
    assert body({"benchmark_config": config, "x.y": 1}).take(RunEvalRequest).ignored == (
        "benchmark_config.eval_candidate.sampling_params.stratgy",
        "benchmark_config.eval_candidate.sampling_params.strategy.top_k",
        "benchmark_config.scoring_params.f.parsing_regexes",
        "benchmark_config.extra",
        "x.y",
    )
    assert body(config).take(RunEvalRequest, bare="benchmark_config").ignored[-1] == "extra"


def test_free_fields_are_not_unknown() -> None:
    rows = [{"any": {"thing": 1}}]
    value = {
        "purpose": "eval/question-answer",
        "source": {"type": "rows", "rows": rows, "uri": "x"},
        "metadata": {"free": {"a": 1}},
    }
    assert body(value).take(RegisterDatasetRequest).ignored == ("source.uri",)


def test_it_can_be_read_in_another_process() -> None:
    there = pickle.loads(pickle.dumps(body(BENCHMARK, typo="x")))  # noqa: S301 - our own bytes
    assert there.take(RegisterBenchmarkRequest).ignored == ("?typo",)


@example(["x", ""])
@given(st.lists(st.text(st.characters(codec=None))))
def test_the_header_is_one_short_line_of_ascii(names: list[str]) -> None:
    value = ignored_header(tuple(names))
    assert value.isascii()
    assert not value or value.isprintable()
    # HTTP has no value that begins or ends with a space
    assert value == value.strip()
    assert len(value) < MOST_IGNORED * 1300


def test_the_header_has_an_end() -> None:
    assert ignored_header(tuple("abcdefghijklmnopqrstuvwxyz")).endswith(", t, and 6 more")


def test_many_mistakes_are_counted() -> None:
    value = {**BENCHMARK, "scoring_functions": list(range(30))}
    with pytest.raises(ConfigError) as error:
        body(value).take(RegisterBenchmarkRequest)
    assert len(error.value.mistakes) == 21
    assert str(error.value).endswith("and 10 more")


def test_an_integer_that_nobody_could_read_back_is_refused_in_our_words() -> None:
    with pytest.raises(ConfigError) as refused:
        Body(b'{"benchmark_id": ' + b"9" * 5000 + b"}", {}).take(RegisterBenchmarkRequest)
    assert str(refused.value) == "body: is not JSON that can be read: an integer of 5000 digits: write it as a text"
