"""A data set of the catalogue: where its file is, its checked rows, its split and its digest."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.config import resolve_conf_uri
from llsflow.data import prefers, row_format, stored, unread_columns
from llsflow.data.conversation import Conversation, Messages, said
from llsflow.data.files import NumberedRow, kind_of, read_rows
from llsflow.data.messages import MESSAGES
from llsflow.data.pairs import TEXT
from llsflow.data.preferences import PREFERENCES
from llsflow.data.problems import grouped
from llsflow.data.sharegpt import SHAREGPT
from llsflow.data.values import refuse_half_characters_of_row, renamed
from llsflow.errors import DataError, Mistake
from llsflow.schema.datasets import HELD_OUT, DatasetConfig, DatasetPurpose
from llsflow.schema.training import DatasetFormat
from llsflow.store import EMPTY, StoredDataset, chain, encode_row

MAX_TOLD = 20
"""Mistakes told in full; the rest are counted."""

WORTH_TELLING_BYTES = 20_000_000
"""A file that is read for more than a moment is announced."""

logger = logging.getLogger("llsflow")

_CACHE_VERSION = 6

_MAY_ASK = (MESSAGES, SHAREGPT)
"""Formats of training rows whose last turn may be no answer that a benchmark can compare."""

_CHAINED_ROWS = 1000
"""Rows whose digest is computed together."""


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set once every row was read and checked."""

    rows: int
    held_out: int
    """How many of the rows are held out of training."""
    characters: int
    """Text of all rows' conversations, in characters."""
    turns: int
    """Messages of all rows' conversations."""
    digest: str
    """sha256 (hex) over the rows in their order: the same for the same rows, in whatever file or store."""
    preferences: int = 0
    """How many of the rows are preferences between two answers and nothing else."""
    pairs: int = 0
    """How many of the rows hold a preference, whatever else they hold."""
    unanswered: int | None = None
    """How many of the rows expect no certain answer; None: not known without reading them."""
    unread: dict[str, int] = field(default_factory=dict)
    """Columns of training rows that supervised fine-tuning does not read, with how many rows have them."""
    unread_of_pairs: dict[str, int] = field(default_factory=dict)
    """Columns of training rows that preference optimisation does not read, with how many rows have them."""


@dataclass(frozen=True)
class DatasetSource:
    """A data set of the catalogue with its place on this machine."""

    config: DatasetConfig
    path: Path | None
    """None: the rows stand in the configuration, or in the store."""

    @property
    def name(self) -> str:
        """How messages name it."""
        if self.path:
            return str(self.path)
        return f"data set {self.config.dataset_id}" if self._address else f"rows of {self.config.dataset_id}"

    @property
    def _address(self) -> stored.StoreAddress | None:
        uri = self.config.uri or ""
        return stored.StoreAddress.parse(uri) if uri.startswith(stored.SCHEME) else None

    def fingerprint(self) -> str:
        """Return a digest that changes when the content does: quick to get, but another one for another kind of file.

        For rows in the store it is that of the rows.
        """
        if self.path is not None:
            return home.cached_file_digest(self.path)
        if address := self._address:
            return address.digest or str(stored.find(str(address))[0].digest)
        return home.digest(self.config.rows)

    def read(self, problems: list[Mistake]) -> Iterator[NumberedRow]:
        """Yield every row that can be read, its columns renamed as `columns` says; the others go to `problems`."""
        columns = self.config.columns
        if not columns:
            yield from self._read(problems)
            return
        for number, row in self._read(problems):
            try:
                yield number, renamed(row, columns)
            except ValueError as error:
                problems.append(Mistake(f"{self.name}:{number}", str(error)))

    def _read(self, problems: list[Mistake]) -> Iterator[NumberedRow]:
        if self.path is not None:
            yield from read_rows(self.path, problems)
        elif address := self._address:
            yield from stored.read(address)
        else:
            yield from enumerate(self.config.rows or [], 1)


def locate(config: DatasetConfig, config_dir: Path | None = None) -> DatasetSource:
    """Find a data set's file, or its rows in the store: those that it holds now, whatever is appended later.

    Raises:
        DataError: the address is of a kind that is not available, there is no such file, or not of a known kind.
    """
    if config.uri is None:
        return DatasetSource(config, None)
    scheme = config.uri.split("://", 1)[0] if "://" in config.uri else ""
    if scheme == "store":
        address, _ = stored.find(config.uri)
        return DatasetSource(config.model_copy(update={"uri": str(address)}), None)
    if scheme == "conf":
        path = resolve_conf_uri(config.uri, config_dir)
    elif scheme or config.uri.startswith("data:"):
        message = (
            f"{config.uri[:80]!r} is not available: allowed are a local path, conf://… and store://…; "
            "register it with the server first"
        )
        raise DataError([Mistake(f"data set {config.dataset_id}", message)])
    else:
        path = Path(config.uri).expanduser().absolute()
    if not path.is_file():
        raise DataError([Mistake(f"data set {config.dataset_id}", _missing(path))])
    kind_of(path.name, str(path))
    return DatasetSource(config, path)


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder: name one file in it"
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"no file {path}" + (f"; did you mean {near[0]!r}?" if near else "")


def inspect(source: DatasetSource) -> DatasetFacts:
    """Read and check every row of a data set once; the answer is kept until the content changes.

    Raises:
        DataError: rows that cannot be read or used, each with file and row; or no rows.
    """
    if (known_rows := _facts_of_stored(source)) is not None:
        return known_rows
    config = source.config
    settings = [source.fingerprint(), config.purpose, config.hold_out, dict(config.columns), _CACHE_VERSION]
    cache = home.home() / "cache" / "datasets" / f"{home.digest(settings)[:32]}.json"
    if (known := home.read_json(cache)) is not None:
        return DatasetFacts(**known)
    if source.path and source.path.stat().st_size > WORTH_TELLING_BYTES:
        logger.info("reading and checking every row of %s, once", source.path)
    facts = _inspect(source)
    with home.storage_errors(home.home()):
        home.write_json(cache, asdict(facts))
    return facts


def _facts_of_stored(source: DatasetSource) -> DatasetFacts | None:
    """Return what the store's record says of all rows of a registered data set; None: the rows must be read."""
    config = source.config
    if config.hold_out or config.columns or not (config.uri or "").startswith(stored.SCHEME):
        return None
    address, record = stored.find(str(config.uri))
    if address.rows != record.num_rows or record.purpose != config.purpose or not record.num_rows:
        return None
    only, pairs = _preferences_of(record)
    return DatasetFacts(
        rows=record.num_rows,
        held_out=0,
        characters=record.characters,
        turns=record.turns,
        digest=record.digest,
        preferences=record.num_rows if only else 0,
        pairs=record.num_rows if pairs else 0,
        unanswered=0 if record.purpose == DatasetPurpose.POST_TRAINING_MESSAGES else None,
    )


def _preferences_of(record: StoredDataset) -> tuple[bool, bool]:
    """Return whether the rows are preferences, and whether they hold some; all are of the first one's kind."""
    if record.purpose != DatasetPurpose.POST_TRAINING_MESSAGES:
        return False, False
    first = next(stored.read(stored.StoreAddress(record.dataset_id, 1)))[1]
    return row_format(first, DatasetPurpose.POST_TRAINING_MESSAGES) is PREFERENCES, prefers(first)


def _inspect(source: DatasetSource) -> DatasetFacts:
    problems: list[Mistake] = []
    rows = characters = turns = preferences = pairs = unanswered = 0
    prompts: list[int] = []
    unread: Counter[str] = Counter()
    unread_of_pairs: Counter[str] = Counter()
    trains = source.config.purpose is DatasetPurpose.POST_TRAINING_MESSAGES
    digest, lines = EMPTY, []
    for number, row in source.read(problems):
        try:
            form = row_format(row, source.config.purpose)
            conversation = form.read(row)
            line = encode_row(row)
            refuse_half_characters_of_row(row, line, form.reads)
            lines.append(line)
        except ValueError as error:
            problems.append(Mistake(f"{source.name}:{number}", str(error)))
            continue
        rows += 1
        preferences += form is PREFERENCES
        pairs += prefers(row)
        unanswered += not form.answered or form is TEXT or (form in _MAY_ASK and not _answers(conversation))
        turns += len(conversation.messages)
        characters += conversation.characters
        if trains:
            unread.update(unread_columns(row, form))
            if prefers(row):
                unread_of_pairs.update(unread_columns(row, PREFERENCES))
        if source.config.hold_out:
            prompts.append(prompt_hash(form.prompt(row)))
        if len(lines) == _CHAINED_ROWS:
            digest, lines = chain(digest, lines), []
    _refuse(problems)
    if not rows:
        raise DataError([Mistake(source.name, "holds no rows: at least one is needed")])
    return DatasetFacts(
        rows=rows,
        held_out=_held_out_rows(source, prompts),
        characters=characters,
        turns=turns,
        digest=chain(digest, lines),
        preferences=preferences,
        pairs=pairs,
        unanswered=unanswered,
        unread=dict(unread),
        unread_of_pairs=dict(unread_of_pairs),
    )


def _answers(conversation: Conversation) -> bool:
    """Return whether the last turn is an answer in text, which a benchmark can compare."""
    last = conversation.messages[-1]
    return last["role"] == "assistant" and "tool_calls" not in last


def _held_out_rows(source: DatasetSource, prompts: list[int]) -> int:
    kept_back = _held_out_hashes(prompts, source.config.hold_out)
    if kept_back and len(kept_back) == len(set(prompts)):
        message = f"hold_out={source.config.hold_out} keeps all {len(prompts)} rows away from training: lower it"
        raise DataError([Mistake(source.name, message)])
    return sum(prompt in kept_back for prompt in prompts)


def _refuse(problems: list[Mistake]) -> None:
    if problems:
        raise DataError(grouped(problems, MAX_TOLD))


def rows_of(source: DatasetSource, dataset_id: str) -> list[NumberedRow]:
    """Return the rows that `dataset_id` names: those held out, or all the others.

    Raises:
        DataError: rows that cannot be read.
    """
    problems: list[Mistake] = []
    rows = list(source.read(problems))
    _refuse(problems)
    if not source.config.hold_out:
        return rows
    prompts = _prompt_hashes(source, rows)
    kept_back = _held_out_hashes(prompts, source.config.hold_out)
    wanted = dataset_id.endswith(HELD_OUT)
    return [row for row, prompt in zip(rows, prompts, strict=True) if (prompt in kept_back) == wanted]


def source_at(place: Mapping[str, Any]) -> DatasetSource:
    """Return the data set of a place in a plan: its config, and the path that was found for it."""
    path = Path(place["path"]) if place["path"] else None
    return DatasetSource(DatasetConfig.model_validate(place["config"]), path)


def _prompt_hashes(source: DatasetSource, rows: list[NumberedRow]) -> list[int]:
    return [prompt_hash(row_format(row, source.config.purpose).prompt(row)) for _, row in rows]


def prompt_hash(messages: Messages) -> int:
    """Return 64 bits of the sha256 of a prompt, blind to the amount of white space."""
    text = "\x00".join(f"{turn['role']}\x01{' '.join(said(turn).split())}" for turn in messages)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _held_out_hashes(prompts: list[int], share: float | None) -> set[int]:
    """Return the smallest hashes, so that equal prompts fall on one side and new rows move few others."""
    if not share:
        return set()
    distinct = sorted(set(prompts))
    return set(distinct[: max(1, round(share * len(distinct)))])


def overlap(
    training: tuple[DatasetSource, str], other: tuple[DatasetSource, str], data_format: DatasetFormat
) -> list[tuple[int, int]]:
    """Return (row of `other`, row of `training`) for each row of `other` whose prompt is trained on.

    Each side is a data set and the id under which its rows are used; `data_format` says which answers of the training
    rows are learned. The answer is kept until a content changes.
    """
    settings: list[Any] = [
        [source.fingerprint(), name, source.config.hold_out, dict(source.config.columns)]
        for source, name in (training, other)
    ]
    settings.append(data_format)
    cache = home.home() / "cache" / "overlaps" / f"{home.digest([settings, _CACHE_VERSION])[:32]}.json"
    if (known := home.read_json(cache)) is not None:
        return [(number, trained) for number, trained in known]
    rows = rows_of(*training)
    seen: dict[int, int] = {}
    every = data_format is DatasetFormat.DIALOG
    for number, row in rows:
        prompts = row_format(row, training[0].config.purpose).prompts(row)
        for prompt in prompts if every else prompts[-1:]:
            seen.setdefault(prompt_hash(prompt), number)
    asked = rows_of(*other)
    hashes = zip(asked, _prompt_hashes(other[0], asked), strict=True)
    shared = [(number, seen[prompt]) for (number, _), prompt in hashes if prompt in seen]
    with home.storage_errors(home.home()):
        home.write_json(cache, shared)
    return shared


def portable(config: DatasetConfig) -> dict[str, Any]:
    """Return the data set's record with a path that holds from any folder."""
    record = config.model_dump(mode="json")
    if config.uri and "://" not in config.uri:
        record["uri"] = str(Path(config.uri).expanduser().absolute())
    return record
