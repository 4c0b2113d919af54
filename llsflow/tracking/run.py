"""One run in MLflow, as steps see it: every method returns, whatever the store does."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from llsflow.schema.traces import TurnTrace
from llsflow.tracking.operations import chunks
from llsflow.tracking.recorder import Recorder
from llsflow.tracking.spans import TOGETHER, cut

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 250
"""MLflow's limits."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


def milliseconds() -> int:
    """Return the time as MLflow writes it."""
    return int(time.time() * 1000)


def key_text(key: str) -> str:
    """Return `key` with only the characters, and the length, that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", key, flags=re.ASCII).strip("/ ")[:KEY_CHARACTERS] or "_"


def flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and values as YAML would show them."""
    for key, value in params.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{dotted}.")
        else:
            yield key_text(dotted), cut(_param(value), PARAM_CHARACTERS)


def _param(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (str, Path)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


class Run:
    """One run: parameters, curves, data, files and models; what the store cannot take now is written later."""

    def __init__(self, recorder: Recorder, ref: str) -> None:
        self._recorder = recorder
        self._ref = ref

    @property
    def id(self) -> str:
        """MLflow's id of the run; `pending-…` until a store that was away has given one."""
        return self._recorder.target.run_id or self._ref

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings, nested ones with dotted keys; those already there keep their value."""
        self._recorder.submit({"op": "params", "params": dict(flat(params))})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record one point per metric, not-a-number included; written in batches, in order."""
        now = milliseconds()
        points = [[key_text(key), float(value), now, int(step)] for key, value in metrics.items() if value is not None]
        if points:
            self._recorder.add_points(points)

    def log_dataset(self, name: str, digest: str, rows: int, source: str, context: str) -> None:
        """Record data that the run read: `digest` is the sha256 (hex), `context` training, validation or eval."""
        op = {"op": "dataset", "name": name, "digest": digest, "rows": rows, "source": source}
        self._recorder.submit({**op, "context": context})
        self.set_tags({f"sha256/{name}": digest})

    def log_text(self, text: str, path: str) -> None:
        """Write a text artifact at `path`."""
        self._recorder.submit({"op": "text", "text": text, "path": path})

    def log_file(self, file: Path, folder: str = "") -> None:
        """Copy a file, or all of a folder, to the artifacts under `folder`."""
        self._recorder.submit({"op": "file", "file": str(Path(file).resolve()), "folder": folder})

    def log_table(self, rows: list[dict[str, Any]], path: str) -> None:
        """Write rows as a table that MLflow's comparison of runs shows; `path` ends in .json."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[_cell(row.get(column)) for column in columns] for row in rows]
        self._recorder.submit({"op": "table", "table": {"columns": columns, "data": data}, "path": path})

    def log_traces(self, traces: Sequence[TurnTrace]) -> None:
        """Record turns of an agent that belong to the run."""
        for batch in chunks(traces, TOGETHER):
            self._recorder.submit({"op": "traces", "traces": [trace.model_dump(mode="json") for trace in batch]})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, over older ones."""
        texts = {key_text(key): cut(str(value), TAG_CHARACTERS) for key, value in tags.items()}
        self._recorder.submit({"op": "tags", "tags": texts})

    def set_note(self, markdown: str) -> None:
        """Set the text at the top of the run's page."""
        self.set_tags({"mlflow.note.content": markdown})

    def log_model(
        self,
        name: str,
        folder: Path,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        datasets: Sequence[tuple[str, str]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Record a model whose files stay where they are, linked to this run and to the data it was measured on.

        `datasets` are (name, sha256) pairs; `metrics` count as the run's own too.
        Returns the id, empty while the store is away: `register` then finds the model by itself.
        """
        op: dict[str, Any] = {"op": "model", "name": model_name(name), "folder": str(Path(folder).resolve())}
        op["params"] = dict(flat(params))
        op["metrics"] = {key_text(k): float(v) for k, v in metrics.items() if math.isfinite(v)}
        op["tags"] = {key_text(k): cut(str(v), TAG_CHARACTERS) for k, v in (tags or {}).items()}
        op["datasets"] = [list(pair) for pair in datasets]
        return self._recorder.submit({**op, "time": milliseconds()})

    def use_model(self, model_id: str) -> None:
        """Record that the run read this model."""
        if model_id:
            self._recorder.submit({"op": "use", "model_id": model_id})

    def register(
        self,
        name: str,
        model_id: str,
        folder: Path,
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Make a version of the registered model `name`; the aliases move to it.

        Returns the version, empty while the store is away.
        """
        op: dict[str, Any] = {"op": "register", "name": model_name(name), "model_id": model_id}
        op |= {"folder": str(Path(folder).resolve()), "aliases": list(aliases)}
        return self._recorder.submit({**op, "tags": {k: str(v) for k, v in (tags or {}).items()}})

    def flush(self) -> None:
        """Write all that waits."""
        self._recorder.flush()

    def finish(self, status: Status) -> None:
        """Write all that waits, and how the run ended."""
        self._recorder.flush()
        self._recorder.submit({"op": "finish", "status": status, "time": milliseconds()})
        self._recorder.close()


def model_name(name: str) -> str:
    """Return `name` as MLflow takes it for models and registered models."""
    return re.sub(r"[/:.%\"'\s]+", "-", name).strip("-") or "model"


def _cell(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number, and the page reads strict JSON
    return value if isinstance(value, (str, int, float, bool, type(None))) else json.dumps(value, default=str)
