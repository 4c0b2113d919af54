"""Data sets of the Hugging Face hub: `huggingface://datasets/<org>/<name>?split=&name=&revision=`, read as a stream."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl

from llsflow.data.files import NumberedRow, kind_of, read_stream
from llsflow.data.values import BadRow, plain_row, without_filled_in
from llsflow.errors import DataError, LlsflowError, Mistake

FORM = "huggingface://datasets/<org>/<name>?split=<split>&name=<configuration>&revision=<commit, tag or branch>"
_ADDRESS = re.compile(r"huggingface://datasets/([A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*)/?(?:\?(.*))?", re.ASCII)
_SETTINGS = {"split", "name", "revision"}
_WORDS = 300
_TEXT_READERS = {"csv", "json"}
"""Kinds of files that are read here: the library would make times of texts like 1970-03-11, and numbers of 007."""
_TYPED_READERS = {"parquet", "arrow"}
_FREE_SETTINGS = {"name", "version", "data_dir", "data_files", "description", "features"}


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
    address = HubAddress.parse(uri)
    ends = time.monotonic() + timeout_seconds
    try:
        for number, row in enumerate(_stream(address, uri, problems), 1):
            plain = plain_row(row)
            if isinstance(plain, BadRow):
                problems.append(Mistake(f"{uri}:{number}", str(plain)))
            else:
                yield number, plain
            if time.monotonic() > ends:
                raise DataError([Mistake(uri, f"took longer than server.fetch.timeout_seconds ({timeout_seconds:g})")])
    except LlsflowError:
        raise
    except Exception as error:  # of whichever of the libraries below that one: the hub's, pyarrow's, the HTTP client's
        words = " ".join(str(error).split())[:_WORDS] or type(error).__name__
        raise DataError([Mistake(uri, f"cannot be read from the hub: {words}")]) from error


def _stream(address: HubAddress, uri: str, problems: list[Mistake]) -> Iterator[dict[str, Any]]:
    import datasets
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()
    # one commit for all that follows: what was looked at is what is read
    commit = HfApi().dataset_info(address.repository, revision=address.revision).sha
    _refuse_outside(address.repository, str(commit), uri)
    builder = datasets.load_dataset_builder(address.repository, address.name, revision=commit)
    files = {str(split): [str(file) for file in found] for split, found in (builder.config.data_files or {}).items()}
    own = f"hf://datasets/{address.repository}@{commit}/"
    if any(not file.startswith(own) for found in files.values() for file in found):
        raise DataError([Mistake(uri, "names files outside its own repository: it is refused")])
    split = _split(address, sorted(files), uri)
    reader = type(builder).__module__.rpartition(".")[2]
    if reader in _TEXT_READERS:
        _refuse_settings(builder.config, uri)
        yield from _texts_of(files[split], uri, problems)
    elif reader in _TYPED_READERS:
        stream = builder.as_streaming_dataset(split)
        _refuse_media(stream.features or {}, uri)
        yield from map(without_filled_in, stream)
    else:
        allowed = ", ".join(sorted(_TEXT_READERS | _TYPED_READERS))
        raise DataError([Mistake(uri, f"holds files that are read as {reader}: allowed are {allowed}")])


def _split(address: HubAddress, splits: list[str], uri: str) -> str:
    if address.split in splits:
        return str(address.split)
    if address.split is None and len(splits) == 1:
        return splits[0]
    found = "names no split" if address.split is None else f"has no split {address.split!r}"
    raise DataError([Mistake(uri, f"{found}: allowed are {', '.join(splits) or 'none'} (?split=…)")])


def _texts_of(files: list[str], uri: str, problems: list[Mistake]) -> Iterator[dict[str, Any]]:
    from huggingface_hub import HfFileSystem

    for address in files:
        name = f"{uri} {address.rpartition('/')[2]}"
        with HfFileSystem().open(address, "rb") as file:
            kind = kind_of(PurePosixPath(address).name, name)
            # many a .json of the hub holds a row a line
            if kind == ".json" and file.read(1) == b"{":
                kind = ".jsonl"
            file.seek(0)
            yield from (row for _, row in read_stream(file, kind, name, problems))


def _refuse_settings(config: Any, uri: str) -> None:
    import dataclasses

    usual = type(config)()
    settings = {field.name for field in dataclasses.fields(config)} - _FREE_SETTINGS
    if special := sorted(name for name in settings if getattr(config, name) != getattr(usual, name)):
        message = f"its card sets {', '.join(special)} for reading its files: only files that need no settings are read"
        raise DataError([Mistake(uri, message)])


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
