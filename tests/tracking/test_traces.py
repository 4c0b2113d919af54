"""Turns in a real MLflow store: their spans, their times, and how they are found."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.experiment import TrackingConfig
from llsflow.schema.traces import TokenCounts, TraceSpan, TurnTrace
from llsflow.tracking import Tracking, serve, spans, traces
from llsflow.tracking.traces import leave, write_traces
from tests.tracking.test_failures import without_table

Script = Callable[..., subprocess.Popen[str]]

BEGUN = datetime(2026, 3, 4, 5, 6, 7, 123457, tzinfo=UTC)
"""To the microsecond, and none of a float's."""


def at(milliseconds: float) -> datetime:
    return BEGUN + timedelta(milliseconds=milliseconds)


def span(kind: str, name: str, begun: float, ended: float, **fields: Any) -> TraceSpan:
    return TraceSpan.model_validate({"kind": kind, "name": name, "started": at(begun), "ended": at(ended), **fields})


def turn(turn_id: str = "turn-1", **fields: Any) -> TurnTrace:
    whole = {
        "name": "clerk",
        "agent_id": "agent-1",
        "session_id": "session-1",
        "turn_id": turn_id,
        "started": BEGUN,
        "ended": at(2000),
        "messages": [{"role": "user", "content": "What is 41 and 1? 世界 🎉"}],
        "output": {"role": "assistant", "content": "It is 42."},
        "tokens": TokenCounts(input=30, output=12),
        "spans": [
            span("shield", "guard", 1, 5, inputs="What is 41 and 1?", outputs={"violation": None}),
            span("model", "qwen3-0.6b", 6, 900, tokens=TokenCounts(input=10, output=5)),
            span("tool", "search", 901, 1500, spans=[span("retrieval", "vs-1", 902, 1400, outputs=["chunk"])]),
            span("model", "qwen3-0.6b", 1501, 1999, tokens=TokenCounts(input=20, output=7)),
        ],
        **fields,
    }
    return TurnTrace.model_validate(whole)


@pytest.fixture(autouse=True)
def _opened_anew(store_home: Path) -> Iterator[None]:
    traces._opened.cache_clear()
    yield
    traces._opened.cache_clear()


def found(filter_string: str | None = None, **more: Any) -> list[Any]:
    """Return the experiment's traces, as MLflow's own client finds them."""
    tracking = Tracking(TrackingConfig(experiment="agents", uri=more.pop("uri", None)))
    tracking.connect()
    return list(
        tracking._client.search_traces(locations=[tracking._experiment_id], filter_string=filter_string, **more)
    )


def test_a_turn_is_a_tree_of_spans_with_the_times_that_they_had() -> None:
    assert write_traces([turn()], None, "agents") == []
    (trace,) = found()
    spans = {one.name: one for one in trace.data.spans}
    by_id = {one.span_id: one.name for one in trace.data.spans}
    tree = [(one.name, one.span_type, by_id.get(one.parent_id)) for one in trace.data.spans]
    assert sorted(tree, key=str) == sorted(
        [
            ("clerk", "AGENT", None),
            ("guard", "GUARDRAIL", "clerk"),
            ("qwen3-0.6b", "CHAT_MODEL", "clerk"),
            ("search", "TOOL", "clerk"),
            ("vs-1", "RETRIEVER", "search"),
            ("qwen3-0.6b", "CHAT_MODEL", "clerk"),
        ],
        key=str,
    )
    nanoseconds = int(BEGUN.replace(microsecond=0).timestamp()) * 10**9 + 123_457_000
    assert spans["clerk"].start_time_ns == nanoseconds
    assert spans["clerk"].end_time_ns == nanoseconds + 2 * 10**9
    assert spans["vs-1"].start_time_ns == nanoseconds + 902 * 10**6
    assert (trace.info.request_time, trace.info.execution_duration) == (nanoseconds // 10**6, 2000)
    assert spans["clerk"].inputs == {"messages": [{"role": "user", "content": "What is 41 and 1? 世界 🎉"}]}
    assert spans["guard"].outputs == {"violation": None}


def test_what_the_list_of_traces_shows() -> None:
    write_traces([turn(), turn("turn-2", session_id="session-2", tokens=None)], None, "agents")
    (trace,) = found("metadata.`mlflow.trace.session` = 'session-1'")
    assert trace.info.tags["mlflow.traceName"] == "clerk"
    assert trace.info.request_preview == "What is 41 and 1? 世界 🎉"
    assert trace.info.response_preview == "It is 42."
    assert trace.info.state == "OK"
    assert trace.info.token_usage == {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    assert trace.info.trace_metadata["llsflow.agent_id"] == "agent-1"
    (summed,) = found("metadata.`llsflow.turn_id` = 'turn-2'")
    assert summed.info.token_usage == {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    usage = [one.get_attribute("mlflow.chat.tokenUsage") for one in trace.data.spans if one.span_type == "CHAT_MODEL"]
    assert {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15} in usage
    assert {one.model_name for one in trace.data.spans} == {None, "qwen3-0.6b"}


def test_a_trace_hangs_on_its_run() -> None:
    tracking = Tracking(TrackingConfig(experiment="agents"))
    run = tracking.open_run("evaluate")
    write_traces([turn(run_id=run.id), turn("turn-2")], None, "agents")
    (trace,) = found(run_id=run.id)
    assert trace.info.trace_metadata["llsflow.turn_id"] == "turn-1"
    tracking.close()


def test_a_failure_is_told_by_the_trace_and_by_the_span() -> None:
    failed = span("tool", "add", 1, 2, error="the server of 'add' does not answer")
    write_traces([turn(output=None, error="the tool failed", spans=[failed])], None, "agents")
    (trace,) = found("status = 'ERROR'")
    assert trace.info.response_preview == "the tool failed"
    root, child = sorted(trace.data.spans, key=lambda one: one.parent_id or "")
    assert (root.status.status_code, root.status.description) == ("ERROR", "the tool failed")
    assert child.status.description == "the server of 'add' does not answer"
    assert child.events[0].attributes["exception.message"] == "the server of 'add' does not answer"


def test_writing_again_changes_nothing() -> None:
    batch = [turn(f"turn-{number}") for number in range(45)]
    write_traces(batch[:30], None, "agents")
    write_traces(batch, None, "agents")
    every = found(max_results=100)
    assert len(every) == 45
    assert {len(trace.data.spans) for trace in every} == {6}
    assert {trace.info.token_usage["total_tokens"] for trace in every} == {42}


def test_any_text_is_taken() -> None:
    odd = "nul \0, half a pair \ud800, " + "long " * 1000
    (tool,) = [span("tool", odd, 1, 2, inputs=odd, outputs={odd: odd}, error=odd)]
    sent = turn(name=odd, messages=odd, output=odd, session_id="s" * 1000, error=odd, spans=[tool])
    assert write_traces([sent], None, "agents") == []
    (trace,) = found()
    assert trace.info.request_preview.startswith("nul , half a pair ?, long long")
    assert len(trace.info.request_preview) == 1000
    assert trace.data.spans[0].inputs.endswith("long ")


def test_nothing_of_this_process_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "secret=hunter2")
    monkeypatch.setenv("MLFLOW_TRACE_TAGS", "hunter2")
    write_traces([turn()], None, "agents")
    (trace,) = found()
    assert "hunter2" not in trace.to_json()
    assert set(trace.info.tags) <= {"mlflow.traceName", "mlflow.artifactLocation", "mlflow.trace.spansLocation"}


def test_the_experiment_is_made_and_opens_on_traces() -> None:
    write_traces([turn()], None, "agents")
    tracking = Tracking(TrackingConfig(experiment="agents"))
    tracking.connect()
    experiment = tracking._client.get_experiment_by_name("agents")
    assert experiment.tags["mlflow.experimentKind"] == "genai_development"


def test_an_experiment_of_runs_stays_one(tracking: Tracking) -> None:
    write_traces([turn()], None, "exp")
    experiment = tracking._client.get_experiment_by_name("exp")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_what_the_store_will_never_take_is_told_and_the_rest_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "METADATA_CHARACTERS", 5000)
    batch = [turn("turn-1"), turn("turn-2", session_id="s" * 300), turn("turn-3")]
    (refusal,) = write_traces(batch, None, "agents")
    assert refusal.startswith("turn turn-2: ")
    assert "Session ID" in refusal
    assert len(found()) == 2


def test_a_store_that_fails_says_so_and_takes_it_later(store_home: Path) -> None:
    write_traces([turn()], None, "agents")
    with without_table(store_home, "spans"), pytest.raises(UnavailableError, match="cannot be used"):
        write_traces([turn("turn-2")], None, "agents")
    write_traces([turn("turn-2")], None, "agents")
    assert len(found()) == 2


def test_a_deleted_experiment_is_named_with_what_to_do() -> None:
    write_traces([turn()], None, "agents")
    tracking = Tracking(TrackingConfig(experiment="agents"))
    tracking.connect()
    tracking._client.delete_experiment(tracking._experiment_id)
    with pytest.raises(UnavailableError, match="was deleted: restore it"):
        write_traces([turn("turn-2")], None, "agents")


def test_what_was_left_on_disk_is_written_with_the_next(store_home: Path) -> None:
    folder = leave([turn(f"turn-{number}", error="half a pair \ud800") for number in range(3)], None, "agents")
    (folder / "0.jsonl").write_text('{"of": "another version"}\nno json\n')
    leave([turn("elsewhere")], None, "other")
    write_traces([turn("turn-3")], None, "agents")
    assert sorted(trace.info.trace_metadata["llsflow.turn_id"] for trace in found()) == [
        f"turn-{number}" for number in range(4)
    ]
    assert list(folder.iterdir()) == []


def test_of_files_on_disk_the_oldest_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_FILES", 2)
    for number in range(3):
        folder = leave([turn(f"turn-{number}")], None, "agents")
    kept = "".join(path.read_text() for path in folder.iterdir())
    assert [f"turn-{number}" in kept for number in range(3)] == [False, True, True]


def test_no_thread_and_no_word_is_left(script: Script) -> None:
    out, err = script("""
        import threading
        from datetime import UTC, datetime
        from llsflow.schema.traces import TurnTrace
        from llsflow.tracking.traces import write_traces
        now = datetime.now(UTC)
        trace = TurnTrace(name="a", agent_id="a", session_id="s", turn_id="t", started=now, ended=now, messages=[])
        write_traces([trace], None, "agents")
        assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
    """).communicate()
    assert (out, err) == ("", "")
    assert len(found()) == 1


@pytest.mark.slow
def test_through_a_server(store_home: Path) -> None:
    server = serve(port=0)
    try:
        tracking = Tracking(TrackingConfig(experiment="agents", uri=server.url))
        run = tracking.open_run("evaluate")
        batch = [turn(f"turn-{number}", run_id=run.id) for number in range(25)]
        write_traces(batch, server.url, "agents")
        write_traces(batch, server.url, "agents")
        every = found(uri=server.url, run_id=run.id)
        assert len(every) == 25
        (trace,) = [trace for trace in every if trace.info.trace_metadata["llsflow.turn_id"] == "turn-7"]
        assert trace.info.token_usage["total_tokens"] == 42
        assert trace.info.trace_metadata["mlflow.trace.session"] == "session-1"
        (root,) = [one for one in trace.data.spans if one.parent_id is None]
        assert root.inputs == {"messages": [{"role": "user", "content": "What is 41 and 1? 世界 🎉"}]}
        assert root.start_time_ns % 10**9 == 123_457_000
        tracking.close()
    finally:
        server.stop()
    assert threading.active_count() < 20
