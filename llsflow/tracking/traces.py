"""Turns of agents as MLflow traces, written when they have ended, with the times that they had."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llsflow.errors import UnavailableError
from llsflow.home import digest, home, write_aside
from llsflow.schema.experiment import TrackingConfig
from llsflow.schema.traces import TurnTrace
from llsflow.tracking.client import tracking_uri
from llsflow.tracking.operations import chunks
from llsflow.tracking.recorder import refused
from llsflow.tracking.spans import TOGETHER, put
from llsflow.tracking.store import Tracking

MOST_FILES = 20
"""Of traces that wait for the next server; the oldest leave."""


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
        """Write turns.

        Raises:
            UnavailableError: the store does not take them; its cause tells whether it ever will.
        """
        with self._store_errors():
            put(self.uri, self._experiment_id, traces)

    def _experiment(self, client: Any) -> str:
        new = client.get_experiment_by_name(self.config.experiment) is None
        found = super()._experiment(client)
        if new:
            # the page then opens on traces
            client.set_experiment_tag(found, "mlflow.experimentKind", "genai_development")
        return found
