"""Data sets of the Hugging Face hub: `huggingface://datasets/<org>/<name>?split=&name=&revision=`, read as a stream."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl

from llsflow.data.files import NumberedRow
from llsflow.data.values import BadRow, plain_row
from llsflow.errors import DataError, Mistake

FORM = "huggingface://datasets/<org>/<name>?split=<split>&name=<configuration>&revision=<commit, tag or branch>"
_ADDRESS = re.compile(r"huggingface://datasets/([A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*)/?(?:\?(.*))?", re.ASCII)
_SETTINGS = {"split", "name", "revision"}
_READ_BY = {"csv", "json", "parquet", "arrow"}
"""The library's readers of rows; its many others are for media and for formats of other fields."""
_WORDS = 300


@dataclass(frozen=True)
class HubAddress:
    """A split of a configuration of a data set of the hub."""

    repository: str
    """`org/name`."""
    split: str | None = None
    name: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, uri: str) -> HubAddress:
        """Read an address.

        Raises:
            DataError: it is not of the form.
        """
        match = _ADDRESS.fullmatch(uri)
        settings = dict(parse_qsl(match.group(2) or "")) if match else {}
        if match is None or settings.keys() - _SETTINGS:
            raise DataError([Mistake(uri[:120], f"is not understood: write {FORM}")])
        return cls(match.group(1), **settings)


def hub_rows(uri: str, problems: list[Mistake], timeout_seconds: float) -> Iterator[NumberedRow]:
    """Yield the rows of a data set of the hub, counted from 1; a row that JSON cannot hold is added to `problems`.

    Raises:
        DataError: there is no such data set, configuration or split, the hub does not answer, or it takes too long.
    """
    import httpx
    import pyarrow
    from datasets.exceptions import DatasetsError

    address = HubAddress.parse(uri)
    ends = time.monotonic() + timeout_seconds
    try:
        for number, row in enumerate(_stream(address, uri), 1):
            plain = plain_row(row)
            if isinstance(plain, BadRow):
                problems.append(Mistake(f"{uri}:{number}", str(plain)))
            else:
                yield number, plain
            if time.monotonic() > ends:
                raise DataError([Mistake(uri, f"took longer than server.fetch.timeout_seconds ({timeout_seconds:g})")])
    except (OSError, ValueError, httpx.HTTPError, pyarrow.ArrowException, DatasetsError) as error:
        words = " ".join(str(error).split())[:_WORDS] or type(error).__name__
        raise DataError([Mistake(uri, f"cannot be read from the hub: {words}")]) from error


def _stream(address: HubAddress, uri: str) -> Iterator[dict[str, Any]]:
    import datasets
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()
    # one commit for all that follows: what was looked at is what is read
    commit = HfApi().dataset_info(address.repository, revision=address.revision).sha
    _refuse_outside(address.repository, str(commit), uri)
    builder = datasets.load_dataset_builder(address.repository, address.name, revision=commit)
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in _READ_BY:
        message = f"holds files that are read as {reader}: allowed are {', '.join(sorted(_READ_BY))}"
        raise DataError([Mistake(uri, message)])
    files = [file for group in (builder.config.data_files or {}).values() for file in group]
    if any(not str(file).startswith(f"hf://datasets/{address.repository}@{commit}/") for file in files):
        raise DataError([Mistake(uri, "names files outside its own repository: it is refused")])
    streams = builder.as_streaming_dataset()
    if address.split is None and len(streams) == 1:
        (split,) = streams
    elif address.split in streams:
        split = address.split
    else:
        found = "names no split" if address.split is None else f"has no split {address.split!r}"
        raise DataError([Mistake(uri, f"{found}: allowed are {', '.join(map(str, streams))} (?split=…)")])
    stream = streams[split]
    _refuse_media(stream.features or {}, uri)
    yield from stream


def _refuse_outside(repository: str, commit: str, uri: str) -> None:
    """Refuse a card whose files lie elsewhere: the library would read paths of this machine, and any address."""
    import yaml
    from huggingface_hub import DatasetCard, HfApi
    from huggingface_hub.errors import EntryNotFoundError

    found: list[Any] = []
    for file_name in ("README.md", ".huggingface.yaml"):
        try:
            path = HfApi().hf_hub_download(repository, file_name, repo_type="dataset", revision=commit)
        except EntryNotFoundError:
            continue
        if file_name == "README.md":
            found.append(DatasetCard.load(path).data.to_dict().get("configs"))
        else:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the hub's cache gives a str
                found.append(yaml.safe_load(file))
    for text in _texts(found):
        if "://" in text or "::" in text or text.startswith(("/", "\\", "~")) or ".." in PurePosixPath(text).parts:
            raise DataError([Mistake(uri, f"its card names {text[:80]!r}, outside its own repository: it is refused")])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _refuse_media(features: Any, uri: str) -> None:
    import datasets

    media = (datasets.Image, datasets.Audio, datasets.Video, datasets.Pdf)
    if columns := [column for column, feature in features.items() if isinstance(feature, media)]:
        raise DataError([Mistake(uri, f"holds images, sound or documents in {', '.join(columns)}: text is needed")])
