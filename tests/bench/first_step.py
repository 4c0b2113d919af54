"""From the POST of a training job to its first optimizer step: how long, and whose time it is.

Prefect's states, MLflow's first loss and the log of the job's process give the times; Python itself tells what each
import takes (PYTHONPROFILEIMPORTTIME), so that imports are told apart from what is done between them.
"""

from __future__ import annotations

import json
import re
import sqlite3
import statistics
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import server
from wire import Wire

ROWS = 200
OURS = ("llsflow", "flows")
TARGET_SECONDS = 1.0

MARKS = {
    "flow run .* begins": "begun",
    "job .* is taken": "taken",
    "recorded as MLflow run": "recorded",
    "prepare begins": "preparing",
    "prepare is done": "prepared",
    "train begins": "training",
    "train is done": "trained",
}
"""What the process says -> the moment."""

SPANS = {
    "": "start",
    "begun": "taking",
    "taken": "recording",
    "recorded": "to steps",
    "preparing": "preparing",
    "prepared": "between",
    "training": "training",
}
"""The moment -> the span that it begins."""

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
_SAID = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \d+ INFO\s+\S+ - (.*)")


def measure(folder: Path, jobs: int) -> list[dict[str, float]]:
    """Return the seconds of each part for so many jobs, after one that warms the server up."""
    folder.mkdir()
    with server.ours(folder, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as (port, _), Wire(port) as wire:
        _job(wire, folder / "outputs", 0)
        return [_job(wire, folder / "outputs", number) for number in range(1, jobs + 1)]


def _job(wire: Wire, home: Path, number: int) -> dict[str, float]:
    """Run one small training, on rows that no earlier one had."""
    job = f"job-{number}"
    rows = [{"prompt": f"say {number} and {index}", "completion": str(index)} for index in range(ROWS)]
    registered = {"purpose": "post-training/messages", "source": {"type": "rows", "rows": rows}}
    wire.json("POST", "/v1beta/datasets", {"dataset_id": job, **registered})
    log = home / "logs" / "worker.log"
    before = log.stat().st_size
    posted = time.time()
    wire.json("POST", "/v1alpha/post-training/supervised-fine-tune", _request(job))
    path = f"/v1alpha/post-training/job/status?job_uuid={job}"
    while (status := wire.json("GET", path))["status"] not in ("completed", "failed"):
        time.sleep(0.2)
    if status["status"] == "failed":
        raise SystemExit(f"the job failed: {status['error']}")
    states = _states(status["links"]["prefect"])
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(before)
        moments, imports = _read(file.read())
    return _parts(posted, states, moments, imports, _first_loss(home, posted))


def _request(job: str) -> dict[str, Any]:
    data = {"dataset_id": job, "batch_size": 8, "shuffle": True, "data_format": "instruct"}
    optimizer = {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.0, "num_warmup_steps": 0}
    training = {"n_epochs": 1, "max_steps_per_epoch": 1, "gradient_accumulation_steps": 1, "dtype": "fp32"}
    return {
        "job_uuid": job,
        "model": "tiny-llama",
        "training_config": {**training, "data_config": data, "optimizer_config": optimizer},
        "hyperparam_search_config": {},
        "logger_config": {},
    }


def _states(page: str) -> dict[str, float]:
    """Return when Prefect had the run in which state."""
    base, _, flow_run_id = page.partition("/runs/flow-run/")
    with urllib.request.urlopen(f"{base}/api/flow_run_states/?flow_run_id={flow_run_id}") as answer:  # noqa: S310
        states = json.load(answer)
    return {state["name"]: datetime.fromisoformat(state["timestamp"]).timestamp() for state in states}


def _first_loss(home: Path, posted: float) -> float:
    """Return when the first optimizer step was done."""
    first = (
        "select min(timestamp) from metrics join runs using (run_uuid) "
        "where name = 'train' and key = 'train/loss' and timestamp > ?"
    )
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as store:
        return float(store.execute(first, (posted * 1e3,)).fetchone()[0]) / 1e3


def _read(log: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return the moments, and the seconds of imports of each package within each span."""
    moments: dict[str, float] = {}
    imports: dict[str, dict[str, float]] = {span: {} for span in SPANS.values()}
    span: str | None = "start"
    for line in log.splitlines():
        if (taken := _IMPORT.match(line)) and span:
            package = taken[2].partition(".")[0]
            imports[span][package] = imports[span].get(package, 0.0) + int(taken[1]) / 1e6
        elif said := _SAID.match(line):
            for words, moment in MARKS.items():
                if re.match(words, said[2]):
                    moments[moment] = datetime.strptime(said[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
                    span = SPANS.get(moment)
    return moments, imports


def _parts(
    posted: float,
    states: Mapping[str, float],
    at: Mapping[str, float],
    imports: Mapping[str, Mapping[str, float]],
    first_loss: float,
) -> dict[str, float]:
    """Return the seconds of each part."""
    taken = {span: sum(found.values()) for span, found in imports.items()}
    own = {span: sum(found.get(name, 0.0) for name in OURS) for span, found in imports.items()}
    process = states["Submitting"]
    around = at["preparing"] - at["recorded"] + at["training"] - at["prepared"]
    return {
        "api": states["Scheduled"] - posted,
        "own imports": sum(own.values()),
        "taking": at["taken"] - at["begun"] - taken["taking"],
        "recording": at["recorded"] - at["taken"] - taken["recording"],
        "worker": process - states["Scheduled"],
        "run": at["begun"] - process - taken["start"],
        "tasks": around - taken["to steps"] - taken["between"],
        "import start": taken["start"] - own["start"],
        "import store": taken["taking"] - own["taking"],
        "import mlflow": sum(taken[name] - own[name] for name in ("recording", "to steps")),
        "import torch": sum(taken[name] - own[name] for name in ("preparing", "between")),
        "import lightning": taken["training"] - own["training"],
        "data": at["prepared"] - at["preparing"] - taken["preparing"],
        "first step": first_loss - at["training"] - taken["training"],
        "all": first_loss - posted,
    }


GROUPS = {
    "ours": {
        "api": "checking, compiling and storing the job, and handing it to Prefect",
        "own imports": "our own modules in the job's process",
        "taking": "taking the job from the store, and compiling it again",
        "recording": "opening its record in MLflow",
    },
    "Prefect": {
        "worker": "its worker sees the run and starts a process",
        "run": "Python starts, Prefect brings the run to Running",
        "tasks": "task runs around the steps",
    },
    "imports": {
        "import start": "Prefect and what it needs",
        "import store": "SQLAlchemy, Hydra, numpy",
        "import mlflow": "MLflow",
        "import torch": "torch, transformers",
        "import lightning": "Lightning and what it needs",
    },
    "data": {"data": f"step prepare: {ROWS} rows as token ids"},
    "training": {"first step": "loading the model, the first optimizer step"},
}


def table(jobs: Sequence[Mapping[str, float]]) -> str:
    """Return the parts as a Markdown table."""
    median = {name: statistics.median(job[name] for job in jobs) for name in jobs[0]}
    lines = ["| | seconds | share | target | |", "|---|---|---|---|---|"]
    for group, parts in GROUPS.items():
        seconds = statistics.median(sum(job[name] for name in parts) for job in jobs)
        told = "; ".join(f"{words} {median[name]:.2f}" for name, words in parts.items())
        target = f"≤ {TARGET_SECONDS:g} s" if group == "ours" else ""
        lines.append(f"| {group} | **{seconds:.2f}** | {seconds / median['all']:.0%} | {target} | {told} |")
    lines.append(f"| all | **{median['all']:.2f}** | | | from the POST to the first optimizer step |")
    return "\n".join(lines)
