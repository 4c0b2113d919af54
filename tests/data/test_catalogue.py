"""One catalogue over conf and the store."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import load_experiment
from llsflow.data import catalogue, stored
from llsflow.data.catalogue import dataset_config, dataset_names, ensure_stored, list_datasets, registered
from llsflow.data.dataset import inspect, locate
from llsflow.data.registration import append, register
from llsflow.errors import ConfigError, ConflictError, DataError, NotFoundError
from llsflow.plan.compile import compile_plan
from llsflow.schema.benchmarks import RerankCandidate
from llsflow.schema.datasets import RegisterDatasetRequest
from llsflow.schema.jobs import JobStatus
from llsflow.schema.server import ServerConfig
from llsflow.store import Store, StoredCheckpoint, StoredDataset, StoredJob, decode_row

DAYS = [{"prompt": f"{day} March 1970", "completion": f"1970-03-{day:02d}"} for day in range(11, 31)]


def put(store: Store, dataset_id: str, rows: list[dict[str, Any]] = DAYS, **changes: Any) -> StoredDataset:
    body = {"dataset_id": dataset_id, "purpose": "post-training/messages", "source": {"type": "rows", "rows": rows}}
    return register(store, RegisterDatasetRequest.model_validate({**body, **changes}), ServerConfig())


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A conf folder of the user's with a data set, a template, one with a mistake, and its rows."""
    folder = tmp_path / "conf"
    (folder / "dataset").mkdir(parents=True)
    (folder / "dataset" / "rows.csv").write_text("prompt,completion\na,b\n")
    for name, text in {
        "mine": "dataset_id: mine\nuri: conf://dataset/rows.csv\nmetadata: {licence: CC0}",
        "open": "dataset_id: open\nuri: ???",
        "environment": "dataset_id: environment\nuri: ${oc.env:FILE}",
        "built": "defaults: [mine]\ndataset_id: built\nuri: x.csv",
        "wrong": "dataset_id: wrong\nuir: x.csv",
        "other": "dataset_id: another\nuri: x.csv",
        "gone": "dataset_id: gone\nuri: conf://dataset/gone.csv",
    }.items():
        (folder / "dataset" / f"{name}.yaml").write_text(text)
    return folder


def test_templates_and_mistakes_are_not_listed(conf: Path, store: Store) -> None:
    names = [known.identifier for known in list_datasets(config_dir=conf)]
    assert names == [
        "arithmetic",
        "arithmetic_held_out",
        "date_preferences",
        "date_styles",
        "gone",
        "help_questions",
        "iso_dates",
        "iso_dates_held_out",
        "mine",
    ]
    # 0 rows would be said of one that nobody has counted
    assert {(known.num_rows, known.digest) for known in list_datasets(store, conf)} == {(None, None)}
    put(store, "days")
    assert dataset_names(store, conf) == [*names, "days"]


def test_looking_makes_no_store(conf: Path, llsflow_home: Path) -> None:
    assert dataset_names(config_dir=conf)
    assert dataset_config("days") is None
    assert registered("dataset", "days") is None
    assert registered.names("dataset") == []
    assert not llsflow_home.exists()


def test_a_data_set_by_name_is_of_conf_or_registered(conf: Path, store: Store) -> None:
    record = put(store, "days", metadata={"text": "${oc.env:HOME}"})
    config = dataset_config("days")
    assert config is not None
    assert config.uri == f"store://days?rows=20&digest={record.digest}"
    assert inspect(locate(config)).digest == record.digest
    mine = dataset_config("mine", store, conf)
    assert mine is not None
    assert mine.uri == "conf://dataset/rows.csv"
    assert dataset_config("open", store, conf) is dataset_config("nothing", store, conf) is None


def test_a_file_is_stored_once_and_anew_when_its_rows_change(conf: Path, store: Store) -> None:
    first = ensure_stored(store, "mine", conf)
    assert (first.provider_id, first.num_rows, first.metadata) == ("conf", 1, {"licence": "CC0"})
    assert ensure_stored(store, "mine", conf) == first
    shown = next(known for known in list_datasets(store, conf) if known.identifier == "mine")
    assert (shown.num_rows, shown.digest) == (1, first.digest)
    (conf / "dataset" / "rows.csv").write_text("prompt,completion\na,b\nc,d\n")
    second = ensure_stored(store, "mine", conf)
    assert [decode_row(line)["prompt"] for line in store.datasets.read("mine")] == ["a", "c"]
    assert second.digest != first.digest
    assert dataset_names(store, conf).count("mine") == 1


def test_stored_rows_of_conf_are_not_imported_twice(conf: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_stored(store, "mine", conf)
    monkeypatch.setattr(catalogue, "import_source", lambda *_: pytest.fail("rows were read again"))
    assert ensure_stored(store, "mine", conf) == first


def test_preferences_of_conf_can_be_looked_at(conf: Path, store: Store) -> None:
    (conf / "dataset" / "rows.csv").write_text("prompt,chosen,rejected\na,b,c\n")
    assert ensure_stored(store, "mine", conf).turns == 3


def test_what_cannot_be_stored_says_why(conf: Path, store: Store) -> None:
    put(store, "days")
    (conf / "dataset" / "days.yaml").write_text("dataset_id: days\nuri: conf://dataset/rows.csv")
    for name, error, sentence in (
        ("nothing", NotFoundError, "no data set 'nothing' in conf/dataset; complete are: "),
        ("open", NotFoundError, "'open' of conf/dataset leaves something open"),
        ("gone", ConfigError, "conf://dataset/gone.csv: no such file"),
        ("days", ConflictError, "'days' is a registered data set and a file of conf/dataset"),
    ):
        with pytest.raises(error, match=sentence):
            ensure_stored(store, name, conf)
    (conf / "dataset" / "rows.csv").write_text("prompt,completion\na,b\nc,\n")
    with pytest.raises(DataError, match=r"rows.csv:3: completion is empty"):
        ensure_stored(store, "mine", conf)
    assert store.datasets.get("mine") is None


def test_files_of_conf_take_no_rows(conf: Path, store: Store) -> None:
    ensure_stored(store, "mine", conf)
    with pytest.raises(ConflictError, match="is a file of conf/dataset: rows are added to that file"):
        append(store, "mine", DAYS)


def test_experiments_name_what_is_registered(store: Store, small: list[str]) -> None:
    record = put(store, "org/days:v1")
    put(store, "asked", [{"question": "1 May 1980", "answer": "1980-05-01"}], purpose="eval/question-answer")
    store.benchmarks.register("may", "asked", ["basic::equality"], {"note": "${oc.env:HOME}"})
    overrides = [word for word in small if not word.startswith("dataset.")]
    short = "benchmark.benchmark_config.eval_candidate.sampling_params.max_tokens=16"
    chosen = ["dataset=org/days:v1", "benchmark=may", short]
    loaded = load_experiment("quickstart", [*overrides, *chosen], registered=registered)
    experiment = loaded.experiment
    assert experiment.dataset is not None
    assert experiment.dataset.uri == f"store://org/days:v1?rows=20&digest={record.digest}"
    assert experiment.datasets["asked"].purpose == "eval/question-answer"
    assert experiment.benchmark is not None
    assert experiment.benchmark.benchmark_id == "may"
    assert loaded.provenance["dataset.uri"] == "registered dataset org/days:v1"
    plan = compile_plan(experiment)
    assert plan.step("prepare").settings["data"]["train"]["digest"] == record.digest


def test_a_registered_benchmark_of_a_rerankers_rows_has_a_reranker_as_its_candidate(store: Store) -> None:
    rows = [{"query": "a cat", "items": ["dogs", "the cat"], "relevance": [0, 1]}]
    put(store, "ranked", rows, purpose="eval/rerank")
    store.benchmarks.register("found", "ranked", ["rerank::mrr"], {})
    experiment = load_experiment("rerank", ["benchmark=found"], registered=registered).experiment
    assert experiment.benchmark is not None
    assert isinstance(experiment.benchmark.benchmark_config.eval_candidate, RerankCandidate)
    assert compile_plan(experiment).step("evaluate-base").estimate.rows == 1


def test_a_trained_checkpoint_is_a_model(store: Store, llsflow_home: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    put(store, "days")
    job = {"job_id": "job", "kind": "post-training", "request": {}, "request_digest": "d", "config": "", "plan_key": ""}
    store.jobs.create(StoredJob(**job, status=JobStatus.COMPLETED, created_at=now))  # type: ignore[arg-type]
    store.jobs.add_checkpoint(StoredCheckpoint("job-step-5", "job", 5, 0, "key/checkpoint", now))
    with pytest.raises(NotFoundError, match="the files of checkpoint 'job-step-5' are gone"):
        load_experiment("quickstart", ["model=job-step-5"], registered=registered)
    (llsflow_home / "work" / "key" / "checkpoint").mkdir(parents=True)
    loaded = load_experiment("quickstart", ["model=job-step-5"], registered=registered)
    assert loaded.experiment.model.model_id == "job-step-5"
    assert loaded.experiment.model.path == str(llsflow_home / "work" / "key" / "checkpoint")


def test_unknown_names_list_files_and_what_is_registered(store: Store) -> None:
    put(store, "days")
    with pytest.raises(
        ConfigError,
        match=r"no dataset 'dais'; did you mean 'days'\? Known: arithmetic, arithmetic_held_out, date_preferences,",
    ):
        load_experiment("quickstart", ["dataset=dais"], registered=registered)
    with pytest.raises(ConfigError, match=r"benchmark.dataset_id=dais: no dataset 'dais'; did you mean 'days'\?"):
        load_experiment("quickstart", ["benchmark.dataset_id=dais"], registered=registered)


def test_the_same_rows_are_prepared_once_wherever_they_are(store: Store, small: list[str], tmp_path: Path) -> None:
    rows = [dict(zip(("prompt", "completion"), line.split(","), strict=True))
            for line in (tmp_path / "days.csv").read_text().splitlines()[1:]]  # fmt: skip
    put(store, "days", rows)
    from_file = compile_plan(load_experiment("quickstart", small).experiment)
    others = [word for word in small if not word.startswith("dataset.")]
    from_store = compile_plan(
        load_experiment("quickstart", [*others, "dataset=days"], registered=registered).experiment
    )
    for name in ("prepare", "train", "evaluate-tuned"):
        assert from_file.step(name).key == from_store.step(name).key


def test_a_plan_names_the_rows_that_it_found(store: Store, small: list[str]) -> None:
    record = put(store, "days")
    others = [word for word in small if not word.startswith("dataset.")]
    experiment = load_experiment("quickstart", [*others, "dataset.uri=store://days"]).experiment
    plan = compile_plan(experiment)
    assert plan.experiment.dataset is not None
    assert plan.experiment.dataset.uri == f"store://days?rows=20&digest={record.digest}"
    append(store, "days", DAYS)
    assert compile_plan(plan.experiment).key == plan.key
    assert compile_plan(experiment).key != plan.key


def test_the_shared_store_follows_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    put(store, "days")
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path / "elsewhere"))
    assert stored.shared_store().datasets.get("days") is None
