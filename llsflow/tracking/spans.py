"""Turns of agents as the traces and spans that MLflow keeps."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llsflow.schema.traces import SpanKind, TokenCounts, TraceSpan, TurnTrace

TOGETHER = 20
"""Traces whose spans are one transaction: a quarter of a second, in which runs wait to write to the same database."""
PREVIEW_CHARACTERS = 1000
METADATA_CHARACTERS = 250
"""MLflow's limits."""

SPAN_TYPES = {
    SpanKind.MODEL: "CHAT_MODEL",
    SpanKind.TOOL: "TOOL",
    SpanKind.SHIELD: "GUARDRAIL",
    SpanKind.RETRIEVAL: "RETRIEVER",
}
"""Source: mlflow.org/docs/latest/genai/concepts/span (types of spans)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def put(uri: str, experiment_id: str, traces: Sequence[TurnTrace]) -> None:
    """Write turns to the store itself; those that are there already are replaced.

    MLflow's own way, spans that begin and end, goes through queues and threads of the whole process, and takes a
    transaction for each span. What the store raises passes.
    """
    from mlflow.tracing.client import TracingClient

    client = TracingClient(uri)
    for trace in traces:
        client.start_trace(_info(trace, experiment_id))
    client.log_spans(experiment_id, [span for trace in traces for span in _spans(trace)])


def _info(trace: TurnTrace, experiment_id: str) -> Any:
    """Return what MLflow lists of a trace.

    Source: mlflow/tracing/constant.py (3.17), TraceMetadataKey and TraceTagKey.
    """
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    metadata = {
        "mlflow.trace.session": trace.session_id,
        "llsflow.agent_id": trace.agent_id,
        "llsflow.turn_id": trace.turn_id,
        "mlflow.sourceRun": trace.run_id or "",
    }
    short = {key: cut(_clean(value), METADATA_CHARACTERS) for key, value in metadata.items() if value}
    if trace.tokens:
        short["mlflow.trace.tokenUsage"] = json.dumps(_usage(trace.tokens))
    begun, ended = _nanoseconds(trace.started), _nanoseconds(trace.ended)
    return TraceInfo(
        trace_id=_trace_id(trace),
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=begun // 1_000_000,
        execution_duration=max(ended - begun, 0) // 1_000_000,
        state=TraceState.ERROR if trace.error else TraceState.OK,
        request_preview=_preview(_asked(trace.messages)),
        response_preview=_preview(_text(trace.output) or trace.error or ""),
        trace_metadata=short,
        tags={"mlflow.traceName": _name(trace.name)},
    )


def _spans(trace: TurnTrace) -> Iterator[Any]:
    """Yield the spans of a turn: its own, and those below it."""
    trace_id, root = _trace_id(trace), _bytes("root", 8)
    # as a request and its answer in OpenAI's protocol, which MLflow's page shows as a conversation
    asked = {"messages": trace.messages} if isinstance(trace.messages, list) else trace.messages
    said = {"choices": [{"message": trace.output}]} if isinstance(trace.output, dict) else trace.output
    attributes = {
        "mlflow.spanType": "AGENT",
        "mlflow.spanInputs": asked,
        "mlflow.spanOutputs": said,
    }
    yield _span(trace_id, root, b"", trace, attributes)
    yield from _below(trace_id, root, trace.spans)


def _below(trace_id: str, parent: bytes, spans: Sequence[TraceSpan]) -> Iterator[Any]:
    for place, span in enumerate(spans):
        span_id = _bytes([parent.hex(), place, span.kind, span.name, span.started.isoformat()], 8)
        attributes = {
            "mlflow.spanType": SPAN_TYPES[span.kind],
            "mlflow.spanInputs": span.inputs,
            "mlflow.spanOutputs": span.outputs,
            "mlflow.llm.model": span.name if span.kind is SpanKind.MODEL else None,
            "mlflow.chat.tokenUsage": _usage(span.tokens) if span.tokens else None,
        }
        yield _span(trace_id, span_id, parent, span, attributes)
        yield from _below(trace_id, span_id, span.spans)


def _span(trace_id: str, span_id: bytes, parent: bytes, of: TurnTrace | TraceSpan, attributes: dict[str, Any]) -> Any:
    """Return a span as MLflow keeps it.

    Source: mlflow/entities/span.py (3.17), Span.to_dict; the attributes are those of SpanAttributeKey.
    """
    from mlflow.entities import Span

    begun = _nanoseconds(of.started)
    ended = max(_nanoseconds(of.ended), begun)
    failed = {"name": "exception", "time_unix_nano": ended, "attributes": {"exception.message": _clean(of.error or "")}}
    return Span.from_dict(
        {
            "trace_id": _base64(bytes.fromhex(trace_id.removeprefix("tr-"))),
            "span_id": _base64(span_id),
            "parent_span_id": _base64(parent),
            "name": _name(of.name),
            "start_time_unix_nano": begun,
            "end_time_unix_nano": ended,
            "events": [failed] if of.error else [],
            "status": {
                "code": "STATUS_CODE_ERROR" if of.error else "STATUS_CODE_OK",
                "message": _clean(of.error or ""),
            },
            "attributes": {
                key: _clean(json.dumps(value, ensure_ascii=False))
                for key, value in {"mlflow.traceRequestId": trace_id, **attributes}.items()
                if value is not None
            },
        }
    )


def _trace_id(trace: TurnTrace) -> str:
    return f"tr-{_bytes([trace.turn_id, trace.started.isoformat()], 16).hex()}"


def _bytes(value: Any, size: int) -> bytes:
    return hashlib.sha256(json.dumps(value).encode()).digest()[:size]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _nanoseconds(at: datetime) -> int:
    # whole numbers: a float of seconds is off by a fraction of a microsecond
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def _usage(tokens: TokenCounts) -> dict[str, int]:
    return {"input_tokens": tokens.input, "output_tokens": tokens.output, "total_tokens": tokens.total}


def _name(name: str) -> str:
    return cut(_clean(name), METADATA_CHARACTERS) or "agent"


def _preview(text: str) -> str:
    return cut(_clean(text), PREVIEW_CHARACTERS)


def _clean(text: str) -> str:
    """Return a text that every database takes: whole characters, and no NUL."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _asked(messages: Any) -> str:
    """Return what the last message says, the user's before a tool's."""
    said = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    of_user = [message for message in said if message.get("role") == "user"]
    return _text((of_user or said)[-1]) if said else _text(messages)


def _text(content: Any) -> str:
    """Return the text of a message, of its content or of an item of it; else its JSON."""
    if isinstance(content, list):
        return " ".join(filter(None, map(_text, content)))
    if isinstance(content, dict):
        held = content.get("content", content.get("text"))
        return _text(held) if held else json.dumps(content, ensure_ascii=False)
    return "" if content is None else str(content)


def cut(text: str, limit: int) -> str:
    """Return `text`, its end replaced by an ellipsis when it is over `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
