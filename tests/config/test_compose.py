"""Composition: shadowing, Hydra's habits, stored configurations, provenance, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

from llsflow.config import load_experiment, packaged_conf, to_yaml
from llsflow.schema.datasets import DatasetConfig

Write = Callable[[str, str], Path]
OWN = ["dataset.uri=my.jsonl", "model.path=./some-hf-folder"]


def test_own_data_and_own_model_take_two_keys(project: Path) -> None:
    loaded = load_experiment("sft", [*OWN, "recipe.training_config.optimizer_config.lr=2e-5"])
    experiment = loaded.experiment
    assert experiment.name == "sft"
    assert (experiment.model.path, experiment.dataset and experiment.dataset.uri) == ("./some-hf-folder", "my.jsonl")
    assert experiment.recipe
    assert experiment.recipe.training_config.optimizer_config
    assert experiment.recipe.training_config.optimizer_config.lr == 2e-5
    data = experiment.recipe.training_config.data_config
    assert data
    assert (data.dataset_id, data.validation_dataset_id) == ("own", "own:held_out")
    assert experiment.benchmark is None
    assert loaded.overrides == (*OWN, "recipe.training_config.optimizer_config.lr=2e-5")


def test_referenced_data_sets_come_into_the_record(project: Path) -> None:
    loaded = load_experiment("quickstart", [])
    assert list(loaded.experiment.datasets) == ["iso_dates_held_out"]
    held_out = loaded.experiment.datasets["iso_dates_held_out"]
    assert isinstance(held_out, DatasetConfig)
    assert held_out.uri == "conf://dataset/iso_dates/held_out.csv"
    assert loaded.provenance["datasets.iso_dates_held_out.uri"].endswith("conf/dataset/iso_dates_held_out.yaml:4:1")


def test_held_out_suffix_names_the_same_data_set(project: Path) -> None:
    override = "recipe.training_config.data_config.validation_dataset_id=iso_dates:held_out"
    loaded = load_experiment("quickstart", [override, "dataset.hold_out=0.1"])
    assert list(loaded.experiment.datasets) == ["iso_dates_held_out"]


def test_a_referenced_data_set_can_be_overridden(project: Path) -> None:
    loaded = load_experiment("quickstart", ["datasets.iso_dates_held_out.uri=mine.csv"])
    assert loaded.experiment.datasets["iso_dates_held_out"].uri == "mine.csv"
    assert loaded.provenance["datasets.iso_dates_held_out.uri"] == (
        "command line: datasets.iso_dates_held_out.uri=mine.csv"
    )


def test_a_users_file_shadows_the_packaged_one_and_says_so(write: Write) -> None:
    assert load_experiment("quickstart", []).warnings == ()
    write(
        "conf/benchmark/iso_dates.yaml",
        """
        benchmark_id: mine
        dataset_id: iso_dates_held_out
        scoring_functions: ['basic::subset_of']
        benchmark_config: {eval_candidate: {type: model, model: "${model.model_id}", sampling_params: {}}}
        """,
    )
    loaded = load_experiment("quickstart", [])
    assert loaded.experiment.benchmark
    assert loaded.experiment.benchmark.benchmark_id == "mine"
    (warning,) = loaded.warnings
    assert warning.startswith("conf/benchmark/iso_dates.yaml shadows the packaged one")
    assert loaded.provenance["benchmark.benchmark_id"] == "conf/benchmark/iso_dates.yaml:1:1"


def test_config_dir_stands_in_for_the_conf_folder(write: Write, project: Path) -> None:
    write("conf/trainer/cpu.yaml", "accelerator: cuda\n")
    write("other/trainer/cpu.yaml", "accelerator: mps\n")
    loaded = load_experiment("quickstart", ["trainer=cpu"], config_dir=project / "other")
    assert loaded.experiment.trainer.accelerator == "mps"
    assert load_experiment("quickstart", ["trainer=cpu"]).experiment.trainer.accelerator == "cuda"


def test_the_packaged_folder_does_not_shadow_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packaged_conf().parent)
    loaded = load_experiment("quickstart", [])
    assert loaded.warnings == ()
    assert loaded.provenance["recipe.kind"] == "conf/recipe/sft_full.yaml:2:1"


def test_an_experiment_builds_on_another(write: Write) -> None:
    write(
        "conf/experiment/mine.yaml",
        """
        defaults:
          - quickstart
          - override /trainer: cpu
        seed: 7
        recipe:
          training_config:
            n_epochs: 2
        """,
    )
    loaded = load_experiment("mine", ["recipe.training_config.max_steps_per_epoch=5"])
    experiment = loaded.experiment
    assert (experiment.name, experiment.seed, experiment.trainer.accelerator) == ("mine", 7, "cpu")
    assert experiment.recipe
    assert experiment.recipe.training_config.n_epochs == 2
    assert experiment.recipe.training_config.max_steps_per_epoch == 5
    assert loaded.provenance["recipe.training_config.n_epochs"] == "conf/experiment/mine.yaml:7:5"
    assert loaded.provenance["recipe.training_config.max_steps_per_epoch"] == (
        "command line: recipe.training_config.max_steps_per_epoch=5"
    )
    # what the experiment says wins over the group that it builds on
    assert loaded.provenance["recipe.training_config.dtype"].endswith("conf/experiment/quickstart.yaml:15:5")


@pytest.mark.parametrize("leave_out", ["benchmark=null", "benchmark=none", "~benchmark", "~benchmark=iso_dates"])
def test_a_group_can_be_left_out(project: Path, leave_out: str) -> None:
    loaded = load_experiment("quickstart", [leave_out])
    assert loaded.experiment.benchmark is None
    assert loaded.experiment.recipe is not None
    assert loaded.experiment.datasets == {}


def test_a_group_that_is_already_left_out_can_be_left_out(project: Path) -> None:
    assert load_experiment("sft", [*OWN, "benchmark=none"]).experiment.benchmark is None


@pytest.mark.parametrize("choice", ["benchmark=held_out", "+benchmark=held_out", "++benchmark=held_out"])
def test_group_choices(project: Path, choice: str) -> None:
    loaded = load_experiment("sft", [*OWN, choice])
    assert loaded.experiment.benchmark is not None
    assert loaded.experiment.benchmark.dataset_id == "own:held_out"


def test_group_at_package(project: Path) -> None:
    loaded = load_experiment("quickstart", ["+dataset@datasets.extra=iso_dates", "datasets.extra.dataset_id=extra"])
    assert loaded.experiment.datasets["extra"].uri == "conf://dataset/iso_dates/train.csv"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("recipe.max_length=100", "max_length", 100),  # known to the schema, written nowhere: no + needed
        ("+recipe.max_length=100", "max_length", 100),
        ("++recipe.lr_schedule=linear", "lr_schedule", "linear"),
        ("~recipe.lr_schedule", "lr_schedule", "cosine"),
        ("~recipe.gradient_clip_norm=1.0", "gradient_clip_norm", 1.0),
        ("recipe={overlong: drop}", "overlong", "drop"),
        ("recipe.gradient_clip_norm=null", "gradient_clip_norm", None),
    ],
)
def test_hydras_habits_hold(project: Path, override: str, key: str, value: object) -> None:
    recipe = load_experiment("quickstart", [override]).experiment.recipe
    assert getattr(recipe, key) == value


def test_free_mappings_take_new_keys_with_a_plus(project: Path) -> None:
    loaded = load_experiment("quickstart", ["+model.init.architecture.rms_norm_eps=1e-6"])
    assert loaded.experiment.model.init
    assert loaded.experiment.model.init.architecture["rms_norm_eps"] == 1e-6


def test_list_items_can_be_set(project: Path) -> None:
    loaded = load_experiment("quickstart", ["benchmark.scoring_functions.0='basic::subset_of'"])
    assert loaded.experiment.benchmark
    assert loaded.experiment.benchmark.scoring_functions == ["basic::subset_of"]


def test_a_value_to_be_given_does_not_hide_one_that_is(write: Write) -> None:
    write("conf/experiment/mine.yaml", "defaults: [quickstart]\nseed: ???\ndescription: ???\n")
    experiment = load_experiment("mine", ["seed=3"]).experiment
    assert (experiment.seed, experiment.description) == (3, "A tiny Llama learns to rewrite dates as ISO 8601.")


def test_what_is_replaced_leaves_no_place_behind(write: Write) -> None:
    write("conf/experiment/mine.yaml", "defaults: [quickstart]\nbenchmark: null\n")
    places = load_experiment("mine", []).provenance
    assert places["benchmark"] == "conf/experiment/mine.yaml:2:1"
    assert not [key for key in places if key.startswith("benchmark.")]


def test_the_last_override_of_a_key_wins(project: Path) -> None:
    assert load_experiment("quickstart", ["seed=1", "seed=2"]).experiment.seed == 2


def test_experiment_as_an_override(project: Path) -> None:
    assert load_experiment(None, ["experiment=quickstart"]).experiment.name == "quickstart"


def test_values_are_read_as_omegaconf_reads_them(write: Write) -> None:
    write(
        "conf/experiment/numbers.yaml",
        "defaults: [quickstart]\nrecipe: {gradient_clip_norm: 1e-4}\nname: 2020-01-01\n",
    )
    experiment = load_experiment("numbers", []).experiment
    assert experiment.recipe
    assert experiment.recipe.gradient_clip_norm == 1e-4
    assert experiment.name == "2020-01-01"


def test_a_file_merges_with_yaml_anchors_and_merge_keys(write: Write) -> None:
    write(
        "conf/experiment/anchors.yaml",
        """
        defaults: [quickstart]
        dataset:
          metadata: {base: &base {a: 1, b: 2}, more: {<<: *base, b: 3}}
        """,
    )
    dataset = load_experiment("anchors", []).experiment.dataset
    assert dataset
    assert dataset.metadata["more"] == {"a": 1, "b": 3}


def test_a_stored_configuration_loads_back_with_overrides(project: Path, write: Write) -> None:
    first = load_experiment("quickstart", ["seed=3"])
    file = write("stored.yaml", to_yaml(first))
    assert load_experiment(None, [], config_file=file).experiment == first.experiment
    again = load_experiment(None, ["seed=4", "trainer=cpu", "benchmark=null"], config_file=file)
    assert (again.experiment.seed, again.experiment.trainer.accelerator, again.experiment.benchmark) == (4, "cpu", None)
    assert again.provenance["model.model_id"] == "stored.yaml:5:3"
    assert again.provenance["trainer.accelerator"].endswith("conf/trainer/cpu.yaml:2:1")


def test_a_group_chosen_over_a_stored_configuration_replaces_all_of_it(project: Path, write: Write) -> None:
    file = write("stored.yaml", to_yaml(load_experiment("quickstart", ["trainer.num_threads=2"])))
    assert load_experiment(None, ["trainer=cpu"], config_file=file).experiment.trainer.num_threads is None


def test_hydras_global_state_is_left_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    someone_elses = object()
    monkeypatch.setattr(VersionBase.instance(), "version_base", someone_elses)
    load_experiment("quickstart", [])
    assert VersionBase.instance().getbase() is someone_elses
    assert not GlobalHydra.instance().is_initialized()


def test_sixteen_threads_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    someone_elses = object()
    monkeypatch.setattr(VersionBase.instance(), "version_base", someone_elses)
    seeds: list[int] = []
    together = threading.Barrier(16)

    def load(seed: int) -> None:
        together.wait()
        seeds.append(load_experiment("quickstart", [f"seed={seed}"]).experiment.seed)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seeds) == list(range(16))
    assert VersionBase.instance().getbase() is someone_elses


@pytest.mark.parametrize("key", ["recipe.kind", "recipe.training_config", "benchmark.scoring_functions.0", "trainer"])
def test_every_key_has_its_place(project: Path, key: str) -> None:
    loaded = load_experiment("quickstart", [])
    file, line, column = loaded.provenance[key].rsplit(":", 2)
    text = Path(file).read_text("utf-8").splitlines()[int(line) - 1][int(column) - 1 :]
    # a group itself is placed where its first key stands
    assert text.startswith(("basic::equality", key.rpartition(".")[2] + ":", "accelerator:", "#"))


def test_unquoted_scalars_that_yaml_misreads_are_warned_of(write: Write) -> None:
    write(
        "conf/experiment/misread.yaml",
        """
        defaults: [quickstart]
        seed: 012
        dataset: {metadata: {a: on, b: 12:30, c: "on", d: true, e: 30}}
        """,
    )
    loaded = load_experiment("misread", [])
    assert loaded.experiment.seed == 10
    assert loaded.warnings == (
        'conf/experiment/misread.yaml:2:1: seed: 012 is read as 10: quote it ("012")',
        'conf/experiment/misread.yaml:3:22: dataset.metadata.a: on is read as true: quote it ("on")',
        'conf/experiment/misread.yaml:3:29: dataset.metadata.b: 12:30 is read as 750: quote it ("12:30")',
    )


def test_an_unread_yml_file_is_warned_of(write: Write) -> None:
    write("conf/trainer/mine.yml", "accelerator: cpu\n")
    assert load_experiment("quickstart", []).warnings == ("conf/trainer/mine.yml is not read: rename it to mine.yaml",)
