"""Turns as traces in a real MLflow store: one a turn, with a span for each step, also when it is gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_stack_client import InternalServerError

from llsflow.api.traces import TraceShipper
from llsflow.tracking.client import import_client, tracking_uri
from llsflow.tracking.traces import write_traces
from tests.api.conftest import Served
from tests.api.talks import ADD, ANSWERS, answer, talk
from tests.scripted import Answer, Scripted


@pytest.fixture
def shipper(served: Served) -> Iterator[TraceShipper]:
    """A server that sends traces to MLflow."""
    found = TraceShipper("agents")
    served.services.agents.trace = found.take
    served.services.traces = found
    yield found
    found.close()


def traces(shipper: TraceShipper) -> list[Any]:
    """Return the traces that are written, the oldest first."""
    shipper.close()
    write_traces([], None, "agents")  # what took longer than a server's end waits for
    client = import_client()(tracking_uri(None))
    experiment = client.get_experiment_by_name("agents")
    found = client.search_traces(locations=[experiment.experiment_id], include_spans=True)
    return sorted(found, key=lambda trace: trace.info.request_time)


def test_a_turn_is_a_trace_with_a_span_for_each_step(served: Served, script: Scripted, shipper: TraceShipper) -> None:
    ANSWERS["6 * 7?"] = Answer(calls=[("calculator", '{"expression": "6 * 7"}')])
    one = talk(served, script, name="reckoner", toolgroups=["calculator"], input_shields=["secrets"])
    turn = one.say("6 * 7?")
    (trace,) = traces(shipper)
    assert trace.info.trace_metadata["mlflow.trace.session"] == one.session_id
    assert trace.info.trace_metadata["llsflow.turn_id"] == turn.turn_id
    assert trace.info.token_usage == {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10}
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert (root.name, root.span_type) == ("reckoner", "AGENT")
    assert root.outputs == {"choices": [{"message": {"role": "assistant", "content": "it is 42"}}]}
    below = sorted((span for span in trace.data.spans if span is not root), key=lambda span: span.start_time_ns)
    assert {span.parent_id for span in below} == {root.span_id}
    assert [(span.span_type, span.name) for span in below] == [
        ("GUARDRAIL", "shields"),
        ("CHAT_MODEL", "there"),
        ("TOOL", "calculator"),
        ("CHAT_MODEL", "there"),
    ]
    assert (below[2].inputs, below[2].outputs) == ({"expression": "6 * 7"}, "42")
    assert below[1].inputs["messages"][-1]["content"] == "6 * 7?"
    assert below[3].outputs["choices"][0]["message"]["content"] == "it is 42"
    assert root.start_time_ns <= below[0].start_time_ns
    assert below[-1].end_time_ns <= root.end_time_ns


def test_a_turn_that_is_gone_on_with_stays_one_trace(served: Served, script: Scripted, shipper: TraceShipper) -> None:
    one = talk(served, script, client_tools=[ADD])
    turn = one.say("please add")
    one.resume(turn.turn_id, [answer(turn.output_message.tool_calls[0])])
    (trace,) = traces(shipper)
    kinds = [span.span_type for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns)]
    assert kinds == ["AGENT", "CHAT_MODEL", "TOOL", "CHAT_MODEL"]
    assert trace.info.token_usage["total_tokens"] == 10


def test_a_turn_that_fails_is_a_trace_with_its_error(served: Served, script: Scripted, shipper: TraceShipper) -> None:
    ANSWERS["fail"] = Answer("out of order", status=500)
    one = talk(served, script)
    with pytest.raises(InternalServerError):
        one.say("fail")
    (trace,) = traces(shipper)
    assert trace.info.state == "ERROR"
    (root,) = trace.data.spans
    assert "out of order" in root.status.description
