"""Turns of agents as MLflow traces, written when they have ended, with the times that they had."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llsflow.errors import UnavailableError
from llsflow.home import digest, home, write_aside
from llsflow.schema.experiment import TrackingConfig
from llsflow.schema.traces import SpanKind, TokenCounts, TraceSpan, TurnTrace
from llsflow.tracking.client import tracking_uri
from llsflow.tracking.operations import chunks
from llsflow.tracking.recorder import refused
from llsflow.tracking.run import cut
from llsflow.tracking.store import Tracking

TOGETHER = 20
"""Traces whose spans are one transaction: a quarter of a second, in which runs wait to write to the same database."""
PREVIEW_CHARACTERS = 1000
METADATA_CHARACTERS = 250
"""MLflow's limits."""
MOST_FILES = 20
"""Of traces that wait for the next server; the oldest leave."""

SPAN_TYPES = {
    SpanKind.MODEL: "CHAT_MODEL",
    SpanKind.TOOL: "TOOL",
    SpanKind.SHIELD: "GUARDRAIL",
    SpanKind.RETRIEVAL: "RETRIEVER",
}
"""Source: mlflow.org/docs/latest/genai/concepts/span (types of spans)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_traces(traces: Sequence[TurnTrace], uri: str | None, experiment: str) -> list[str]:
    """Write turns to an experiment, which is made when it is missing, and what an earlier process left for it.

    Writing a turn again changes nothing. Returns a sentence for each turn that the store will never take.

    Raises:
        UnavailableError: the store does not answer, or cannot be used; some of the turns may be written.
        StorageError: the folder of the store cannot be written.
    """
    uri = tracking_uri(uri)
    refusals = _write_left(uri, experiment)
    for batch in chunks(traces, TOGETHER):
        refusals += _write(batch, uri, experiment)
    return refusals


def leave(traces: Sequence[TurnTrace], uri: str | None, experiment: str) -> Path:
    """Put turns on disk for the next process that writes to this experiment; return the folder.

    Raises:
        OSError: they cannot be written there either.
    """
    folder = _left_folder(tracking_uri(uri), experiment)
    lines = "".join(json.dumps(trace.model_dump(mode="json")) + "\n" for trace in traces)
    write_aside(folder / f"{time.time_ns()}.jsonl", lines)
    for old in sorted(folder.glob("*.jsonl"))[:-MOST_FILES]:
        old.unlink(missing_ok=True)
    return folder


def _left_folder(uri: str, experiment: str) -> Path:
    return home() / "mlflow" / "spool" / "traces" / digest([uri, experiment])[:12]


def _write_left(uri: str, experiment: str) -> list[str]:
    refusals: list[str] = []
    for path in sorted(_left_folder(uri, experiment).glob("*.jsonl")):
        # no lock: two processes that write the same turns write them once
        for batch in chunks(list(_read_left(path)), TOGETHER):
            refusals += _write(batch, uri, experiment)
        path.unlink(missing_ok=True)
    return refusals


def _read_left(path: Path) -> Iterator[TurnTrace]:
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text("utf-8").splitlines():
            # another version of this program may have written it
            with contextlib.suppress(ValidationError, json.JSONDecodeError):
                yield TurnTrace.model_validate(json.loads(line))


def _write(traces: Sequence[TurnTrace], uri: str, experiment: str) -> list[str]:
    opened = _opened(uri, experiment)
    try:
        opened.write(traces)
    except UnavailableError as error:
        _opened.cache_clear()
        cause = error.__cause__
        if not isinstance(cause, Exception) or not refused(cause):
            raise
        # a deleted experiment is refused too: opening it again tells
        _opened(uri, experiment)
        if len(traces) == 1:
            return [f"turn {traces[0].turn_id}: {str(cause).partition(chr(10))[0]}"]
    else:
        return []
    return [refusal for trace in traces for refusal in _write([trace], uri, experiment)]


@lru_cache(maxsize=8)
def _opened(uri: str, experiment: str) -> _TraceStore:
    opened = _TraceStore(TrackingConfig(uri=uri, experiment=experiment))
    opened.connect()
    return opened


class _TraceStore(Tracking):
    """An experiment that traces are written to."""

    def write(self, traces: Sequence[TurnTrace]) -> None:
        """Write turns through the store itself.

        MLflow's own way, spans that begin and end, goes through queues and threads of the whole process, and takes a
        transaction for each span.

        Raises:
            UnavailableError: the store does not take them; its cause tells whether it ever will.
        """
        from mlflow.tracing.client import TracingClient

        with self._store_errors():
            client = TracingClient(self.uri)
            for trace in traces:
                client.start_trace(_info(trace, self._experiment_id))
            client.log_spans(self._experiment_id, [span for trace in traces for span in _spans(trace)])

    def _experiment(self, client: Any) -> str:
        new = client.get_experiment_by_name(self.config.experiment) is None
        found = super()._experiment(client)
        if new:
            # the page then opens on traces
            client.set_experiment_tag(found, "mlflow.experimentKind", "genai_development")
        return found


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
    asked = {"messages": trace.messages} if isinstance(trace.messages, list) else trace.messages
    attributes = {
        "mlflow.spanType": "AGENT",
        "mlflow.spanInputs": asked,
        "mlflow.spanOutputs": trace.output,
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
