"""The benchmarks of conf/benchmark that stand by themselves: those whose data set is named outright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llsflow.config.folders import Folders
from llsflow.config.report import MISSING
from llsflow.schema.benchmarks import Benchmark

GROUP = "benchmark"
PROVIDER = "conf"


def conf_benchmarks(config_dir: Path | None = None) -> list[Benchmark]:
    """Return the benchmarks of conf/benchmark, by name; templates, which leave something open, are not among them."""
    folders = Folders.at(config_dir)
    found = (_read(path) for name in folders.options(GROUP) if (path := folders.find(f"{GROUP}/{name}")))
    return sorted((benchmark for benchmark in found if benchmark), key=lambda benchmark: benchmark.identifier)


def conf_benchmark(benchmark_id: str, config_dir: Path | None = None) -> Benchmark | None:
    """Return a benchmark of conf/benchmark by its benchmark_id, or by the name of its file."""
    path = Folders.at(config_dir).find(f"{GROUP}/{benchmark_id}")
    if path is not None and (named := _read(path)) is not None:
        return named
    return next((known for known in conf_benchmarks(config_dir) if known.identifier == benchmark_id), None)


def _read(path: Path) -> Benchmark | None:
    """Return the benchmark of a file; None: it is a template, or it cannot be read."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(values, dict):
        return None
    dataset_id, scoring_functions = values.get("dataset_id"), values.get("scoring_functions")
    metadata = values.get("metadata") or {}
    # what else it holds is a default of its own experiments: a request brings its own candidate
    if not isinstance(scoring_functions, list) or _open([dataset_id, scoring_functions, metadata]):
        return None
    return Benchmark(
        identifier=str(values.get("benchmark_id", path.stem)),
        provider_id=PROVIDER,
        provider_resource_id=path.stem,
        dataset_id=str(dataset_id),
        scoring_functions=[str(name) for name in scoring_functions],
        metadata=metadata,
    )


def _open(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_open(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is None or (isinstance(value, str) and (value == MISSING or "${" in value))
