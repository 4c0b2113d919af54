"""The data sets of conf/dataset that stand by themselves: every value is written out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llsflow.config.folders import Folders
from llsflow.config.report import MISSING, Report
from llsflow.schema.datasets import DatasetConfig

GROUP = "dataset"


def conf_datasets(config_dir: Path | None = None) -> list[DatasetConfig]:
    """Return the data sets of conf/dataset by name; templates, which leave something open, are not among them."""
    folders = Folders.at(config_dir)
    found = (_read(folders, name) for name in folders.options(GROUP))
    return [dataset for dataset in found if dataset is not None]


def conf_dataset(dataset_id: str, config_dir: Path | None = None) -> DatasetConfig | None:
    """Return a data set of conf/dataset; None: there is none, it is a template, or its file has mistakes."""
    return _read(Folders.at(config_dir), dataset_id)


def _read(folders: Folders, name: str) -> DatasetConfig | None:
    from llsflow.config.files import read_document

    path = folders.find(f"{GROUP}/{name}")
    if path is None:
        return None
    report = Report()
    values = read_document(path, report).values
    # what builds on other files, or holds what only an experiment resolves, is no data set by itself
    if report.found or "defaults" in values or values.get("dataset_id") != name or any(map(_is_open, _texts(values))):
        return None
    try:
        return DatasetConfig.model_validate(values)
    except ValidationError:
        return None


def _is_open(text: str) -> bool:
    return text == MISSING or "${" in text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
