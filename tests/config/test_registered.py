"""Names that no file of conf has: asked for once, told with where they came from, and never for what conf has."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.config import complete, load_experiment
from llsflow.errors import ConfigError
from tests.config.conftest import Write

DATASETS = {"days": {"dataset_id": "days", "purpose": "post-training/messages", "uri": "store://days"}}


class Known:
    """Two registered data sets, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, group: str, name: str) -> dict[str, Any] | None:
        self.asked.append((group, name))
        return DATASETS.get(name) if group == "dataset" else None

    def names(self, group: str) -> list[str]:
        return list(DATASETS) if group == "dataset" else []


def test_files_come_first_and_nothing_is_asked(project: object) -> None:
    known = Known()
    load_experiment("quickstart", ["dataset=iso_dates"], registered=known)
    assert known.asked == []


def test_a_registered_name_is_an_option_and_can_be_changed(project: object) -> None:
    known = Known()
    loaded = load_experiment("quickstart", ["dataset=days", "dataset.hold_out=0.1"], registered=known)
    assert loaded.experiment.dataset is not None
    assert (loaded.experiment.dataset.uri, loaded.experiment.dataset.hold_out) == ("store://days", 0.1)
    assert loaded.provenance["dataset.uri"] == "registered dataset days"
    assert known.asked == [("dataset", "days")]


def test_an_experiment_of_the_user_may_name_it(write: Write) -> None:
    write(
        "conf/experiment/mine.yaml",
        """
        defaults:
          - override /model: tiny_llama
          - override /dataset: days
          - override /recipe: sft_full
        """,
    )
    loaded = load_experiment("mine", [], registered=Known())
    assert loaded.experiment.dataset is not None
    assert loaded.experiment.dataset.dataset_id == "days"


def test_ids_in_recipes_and_benchmarks_are_found(project: object) -> None:
    key = "recipe.training_config.data_config.validation_dataset_id"
    loaded = load_experiment("quickstart", [f"{key}=days"], registered=Known())
    assert loaded.experiment.datasets["days"].uri == "store://days"


def test_what_is_registered_wrongly_is_told_with_its_name(project: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "bad", {"dataset_id": "bad", "purpose": "nothing", "uri": "store://bad"})
    with pytest.raises(ConfigError, match=r"registered dataset bad: dataset.purpose: found 'nothing', allowed:"):
        load_experiment("quickstart", ["dataset=bad"], registered=Known())


def test_unknown_names_list_both(project: object) -> None:
    with pytest.raises(ConfigError, match="no dataset 'dayz'; did you mean 'days'"):
        load_experiment("quickstart", ["dataset=dayz"], registered=Known())
    with pytest.raises(ConfigError, match="no recipe 'days'"):
        load_experiment("quickstart", ["recipe=days"], registered=Known())


def test_completion_offers_both(project: object) -> None:
    assert complete(["quickstart", "dataset=day"], registered=Known()) == ["dataset=days"]
    assert "dataset=iso_dates" in complete(["quickstart", "dataset="], registered=Known())
    assert complete(["quickstart", "seed="], registered=Known()) == []
