"""The one catalogue: what stands in conf and what is registered in the store, under one set of names."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.config import option_exists
from llsflow.config.datasets import conf_dataset, conf_datasets
from llsflow.data.checks import RowCheck
from llsflow.data.dataset import DatasetSource, locate
from llsflow.data.registration import PROVIDER, ROWS_SHOWN, import_source
from llsflow.data.sources import OpenSource
from llsflow.data.stored import address_of, shared_store, store_exists
from llsflow.errors import ConflictError, NotFoundError
from llsflow.schema.datasets import Dataset, DatasetConfig, DatasetPurpose, RowsDataSource, URIDataSource
from llsflow.store import Store, StoredDataset
from llsflow.store.imports import RowImport

CONF_PROVIDER = "conf"

_EVALUATION_TOKENS = 256
_MEMO_VERSION = 1

logger = logging.getLogger("llsflow")


def dataset_config(dataset_id: str, store: Store | None = None, config_dir: Path | None = None) -> DatasetConfig | None:
    """Return a data set by name, of conf or as it is registered now (its rows pinned by digest); None: there is none.

    Without a store, that of this process is looked into, if there is one.
    """
    if option_exists("dataset", dataset_id, config_dir):
        return conf_dataset(dataset_id, config_dir)
    store = store or (shared_store() if store_exists() else None)
    record = store.datasets.get(dataset_id) if store else None
    if record is None or record.provider_id != PROVIDER:
        return None
    return DatasetConfig(dataset_id=record.dataset_id, purpose=DatasetPurpose(record.purpose), uri=address_of(record))


def dataset_names(store: Store | None = None, config_dir: Path | None = None) -> list[str]:
    """Return the names of all data sets: those of conf, then the registered ones, the oldest first."""
    store = store or (shared_store() if store_exists() else None)
    conf = [known.dataset_id for known in conf_datasets(config_dir)]
    registered = store.datasets.list() if store else []
    return [*conf, *(known.dataset_id for known in registered if known.provider_id == PROVIDER)]


def list_datasets(store: Store | None = None, config_dir: Path | None = None) -> list[Dataset]:
    """Return the data sets of conf as the API shows them; the number of rows and digest of those that were read."""
    found = []
    for config in conf_datasets(config_dir):
        record = store.datasets.get(config.dataset_id) if store else None
        read = record if record and record.provider_id == CONF_PROVIDER else None
        found.append(
            Dataset(
                identifier=config.dataset_id,
                provider_id=CONF_PROVIDER,
                provider_resource_id=config.dataset_id,
                purpose=config.purpose,
                source=URIDataSource(uri=config.uri) if config.uri else RowsDataSource(rows=[]),
                metadata=config.metadata,
                num_rows=read.num_rows if read else None,
                digest=read.digest if read else None,
            )
        )
    return found


def ensure_stored(store: Store, dataset_id: str, config_dir: Path | None = None) -> StoredDataset:
    """Return a data set of conf as the store holds it; its rows are read in first, and anew when they have changed.

    Raises:
        NotFoundError: conf has no complete data set of that name.
        ConflictError: the name was registered, and a file of conf took it later.
        DataError: its file is not there, or holds rows that cannot be used.
    """
    config = conf_dataset(dataset_id, config_dir)
    if config is None:
        raise NotFoundError(_no_such(dataset_id, config_dir))
    source = locate(config, config_dir)
    memo = home.home() / "cache" / "imported" / f"{home.digest([store.url_shown, dataset_id])[:32]}.json"
    seen = [source.fingerprint(), config.purpose, config.metadata, config.uri, _MEMO_VERSION]
    if (record := _unchanged(store, dataset_id, memo, seen)) is not None:
        return record
    with home.locked(f"import-{memo.stem}", "another reading of the data set"):
        if (record := _unchanged(store, dataset_id, memo, seen)) is not None:
            return record
        logger.info("reading %s into the store, once", source.name)
        record = _import(store, source)
        with home.storage_errors(home.home()):
            home.write_json(memo, [seen, record.digest])
    return record


def _unchanged(store: Store, dataset_id: str, memo: Path, seen: list[Any]) -> StoredDataset | None:
    record = store.datasets.get(dataset_id)
    if record is None:
        return None
    if record.provider_id != CONF_PROVIDER:
        raise ConflictError(
            f"{dataset_id!r} is a registered data set and a file of conf/dataset: rename the file, or unregister it"
        )
    return record if home.read_json(memo) == [seen, record.digest] else None


def _import(store: Store, source: DatasetSource) -> StoredDataset:
    check = RowCheck(source.config.purpose)
    rows = OpenSource(source.read(check.problems), source.name)
    with store.datasets.import_rows() as incoming:
        import_source(rows, check, incoming)
        try:
            return _publish(incoming, source.config)
        except ConflictError:
            # the file says something else than when it was read last
            store.datasets.delete(source.config.dataset_id)
            return _publish(incoming, source.config)


def _publish(incoming: RowImport, config: DatasetConfig) -> StoredDataset:
    rows = None if config.rows is None else list(itertools.islice(config.rows, ROWS_SHOWN))
    kept = {"type": "uri", "uri": config.uri} if rows is None else {"type": "rows", "rows": rows}
    return incoming.publish(config.dataset_id, config.purpose.value, kept, config.metadata, CONF_PROVIDER)


def _no_such(dataset_id: str, config_dir: Path | None) -> str:
    known = ", ".join(config.dataset_id for config in conf_datasets(config_dir)) or "none"
    if option_exists("dataset", dataset_id, config_dir):
        return (
            f"data set {dataset_id!r} of conf/dataset leaves something open or has a mistake (`llsflow check` tells "
            f"which), so it is a template; complete are: {known}"
        )
    return f"there is no data set {dataset_id!r} in conf/dataset; complete are: {known}"


class Registered:
    """What is registered, as configuration takes it: for names that conf does not have."""

    def __call__(self, group: str, name: str) -> dict[str, Any] | None:
        """Return what a name of a group stands for; None: nothing of that name is registered."""
        if group not in _FOUND or not store_exists():
            return None
        return _FOUND[group](shared_store(), name)

    def names(self, group: str) -> list[str]:
        """Return the names that are registered for a group."""
        if group not in _FOUND or not store_exists():
            return []
        store = shared_store()
        if group == "dataset":
            return [known.dataset_id for known in store.datasets.list() if known.provider_id == PROVIDER]
        if group == "benchmark":
            return [known.benchmark_id for known in store.benchmarks.list()]
        return [known.identifier for known in store.jobs.all_checkpoints()]


def _dataset(store: Store, name: str) -> dict[str, Any] | None:
    record = store.datasets.get(name)
    if record is None or record.provider_id != PROVIDER:
        return None
    # no metadata: it is anybody's text, and configuration would resolve what looks like ${…} in it
    return {"dataset_id": record.dataset_id, "purpose": record.purpose, "uri": address_of(record)}


def _benchmark(store: Store, name: str) -> dict[str, Any] | None:
    record = store.benchmarks.get(name)
    if record is None:
        return None
    dataset = store.datasets.get(record.dataset_id)
    candidate: dict[str, Any] = {"type": "rerank", "model": "${model.model_id}"}
    if dataset is None or dataset.purpose != DatasetPurpose.EVAL_RERANK:
        sampling = {"strategy": {"type": "greedy"}, "max_tokens": _EVALUATION_TOKENS}
        candidate = {"type": "model", "model": "${model.model_id}", "sampling_params": sampling}
    return {
        "benchmark_id": record.benchmark_id,
        "dataset_id": record.dataset_id,
        "scoring_functions": [name for name in record.scoring_functions if "${" not in name],
        "benchmark_config": {"eval_candidate": candidate},
    }


def _model(store: Store, name: str) -> dict[str, Any] | None:
    checkpoint = store.jobs.checkpoint(name)
    if checkpoint is None:
        return None
    folder = home.of_step(checkpoint.path)
    if folder is None:
        raise NotFoundError(f"the files of checkpoint {name!r} are gone from {home.home()}: run its training again")
    return {"model_id": name, "path": str(folder)}


_FOUND = {"dataset": _dataset, "benchmark": _benchmark, "model": _model}

registered = Registered()
