"""What the names in a request stand for: conf and what was registered or trained are one catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from llsflow.data import catalogue as datasets
from llsflow.models import catalogue as models
from llsflow.schema.datasets import DatasetConfig
from llsflow.schema.models import ModelConfig
from llsflow.store import Store


class CatalogueNames:
    """The data sets and models of one store and of conf."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def dataset(self, dataset_id: str) -> DatasetConfig | None:
        """Return the data set of that name, as it is now; None: there is none."""
        return datasets.dataset_config(dataset_id, self.store)

    def datasets(self) -> Sequence[str]:
        """Return every name of a data set."""
        return datasets.dataset_names(self.store)

    def model(self, model_id: str) -> ModelConfig | None:
        """Return the model of that name; None: there is none."""
        return models.find_model(model_id, self.store)

    def models(self) -> Sequence[str]:
        """Return every name of a model."""
        return models.known_models(self.store)
