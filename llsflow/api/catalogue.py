"""Data sets and benchmarks by name: what is registered and what lies in conf are one catalogue."""

from __future__ import annotations

from llsflow.api.aside import store_here
from llsflow.api.deps import Services
from llsflow.errors import NotFoundError
from llsflow.schema.benchmarks import Benchmark
from llsflow.schema.datasets import Dataset, DatasetPurpose, RowsDataSource, URIDataSource
from llsflow.schema.kinds import or_known
from llsflow.store import Store, StoredBenchmark, StoredDataset

CONF = "conf"
LLSFLOW = "llsflow"

SHOWN_ROWS = 100
"""Rows given inline that are shown with their data set."""

SHOWN_CHARACTERS = 1000
"""Of an address that is the data itself."""


def stored_here(services: Services, dataset_id: str) -> StoredDataset:
    """Return a data set's record; one of conf/dataset is read into the store first, where it is not there as it is now.

    Raises:
        NotFoundError: there is no such data set.
    """
    if of_conf(dataset_id):
        return services.aside.run(_read_into_store, dataset_id)
    found = services.store.datasets.get(dataset_id)
    if found is None:
        known = [dataset.identifier for dataset in all_datasets(services.store)]
        raise NotFoundError(f"no data set {dataset_id!r}{or_known(dataset_id, known)}")
    return found


def of_conf(dataset_id: str) -> bool:
    """Return whether a file of conf/dataset has that name."""
    from llsflow.config import option_exists

    return option_exists("dataset", dataset_id)


def _read_into_store(dataset_id: str) -> StoredDataset:
    from llsflow.data.catalogue import ensure_stored

    return ensure_stored(store_here(), dataset_id)


def all_datasets(store: Store) -> list[Dataset]:
    """Return every data set without its rows: those of conf/dataset, then the registered ones, the oldest first."""
    from llsflow.data.catalogue import list_datasets

    registered = [dataset_view(known, rows=0) for known in store.datasets.list() if known.provider_id != CONF]
    return [*list_datasets(store), *registered]


def dataset_view(stored: StoredDataset, rows: int) -> Dataset:
    """Return a data set as the API shows it, with up to so many of the rows that it was registered with."""
    source = RowsDataSource(rows=stored.source.get("rows", [])[:rows]) if stored.source["type"] == "rows" else None
    return Dataset(
        identifier=stored.dataset_id,
        provider_id=stored.provider_id,
        provider_resource_id=stored.dataset_id,
        purpose=DatasetPurpose(stored.purpose),
        source=source or URIDataSource(uri=_shown(stored.source["uri"])),
        metadata=stored.metadata,
        num_rows=stored.num_rows,
        digest=stored.digest,
    )


def find_benchmark(store: Store, benchmark_id: str) -> Benchmark:
    """Return a benchmark of the store or of conf/benchmark.

    Raises:
        NotFoundError: there is no such benchmark.
    """
    if (stored := store.benchmarks.get(benchmark_id)) is not None:
        return benchmark_view(stored)
    if (known := benchmark_of_conf(benchmark_id)) is not None:
        return known
    meant = or_known(benchmark_id, [known.identifier for known in all_benchmarks(store)])
    raise NotFoundError(f"no benchmark {benchmark_id!r}{meant}")


def benchmark_of_conf(benchmark_id: str) -> Benchmark | None:
    """Return the benchmark of conf/benchmark that has that name."""
    from llsflow.config.benchmarks import conf_benchmark

    return conf_benchmark(benchmark_id)


def all_benchmarks(store: Store) -> list[Benchmark]:
    """Return every benchmark: those of conf/benchmark, then the registered ones, the oldest first."""
    from llsflow.config.benchmarks import conf_benchmarks

    return [*conf_benchmarks(), *(benchmark_view(stored) for stored in store.benchmarks.list())]


def benchmark_view(stored: StoredBenchmark) -> Benchmark:
    """Return a registered benchmark as the API shows it."""
    return Benchmark(
        identifier=stored.benchmark_id,
        provider_id=LLSFLOW,
        provider_resource_id=stored.benchmark_id,
        dataset_id=stored.dataset_id,
        scoring_functions=stored.scoring_functions,
        metadata=stored.metadata,
    )


def _shown(uri: str) -> str:
    return uri if len(uri) <= SHOWN_CHARACTERS else f"{uri[:SHOWN_CHARACTERS]}…"
