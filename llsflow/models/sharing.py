"""A model in memory once, and the adapters that take turns on it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llsflow import home
from llsflow.models.describe import ADAPTER_CONFIG, adapter_base, is_adapter
from llsflow.models.load import model_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def base_of(folder: Path) -> Path | None:
    """Return the folder of the model that an adapter can share with others; None: it is a model of its own.

    One that also changes the output layer or holds whole layers is merged into a copy.

    Raises:
        ModelError, UnavailableError: its base is not here.
    """
    if not is_adapter(folder):
        return None
    config = home.read_json(folder / ADAPTER_CONFIG) or {}
    targets = config.get("target_modules")
    own = config.get("modules_to_save") or not isinstance(targets, list) or any("head" in name for name in targets)
    return None if own else model_folder(*adapter_base(folder))


class SharedModel:
    """A causal language model whose adapters are put on one at a time; used in one thread."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._adapted: Any = None
        self._on: str | None = None
        self._names = (f"adapter{number}" for number in count())

    def add(self, folder: Path) -> str:
        """Put the adapter of a folder beside the weights, and return the name that it has here.

        Raises:
            ModelError: it is damaged, or belongs to another model.
        """
        from llsflow.models.adapters import attach_another, attach_saved

        name = next(self._names)
        if self._adapted is None:
            self._adapted = attach_saved(self.model, folder, trainable=False, name=name).train(False)
            self._on = name
        else:
            attach_another(self._adapted, folder, name)
        return name

    def use(self, name: str | None) -> None:
        """Have the model answer with this adapter; None: without any."""
        if self._adapted is None or name == self._on:
            return
        if name is None:
            self._adapted.base_model.disable_adapter_layers()
        else:
            self._adapted.base_model.enable_adapter_layers()
            self._adapted.set_adapter(name)
        self._on = name

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        self._adapted.delete_adapter(name)
        if self._on == name:
            self._on = ""  # none of those there are: the next one is put on
