"""Jobs as the API asks for them: started once, looked at, cancelled, and never half there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from llsflow.data.registration import register
from llsflow.errors import ConfigError, ConflictError, DataError, NotFoundError, UnavailableError
from llsflow.jobs.compiling import compile_job, config_file
from llsflow.jobs.names import CatalogueNames
from llsflow.jobs.reconcile import Reconciler
from llsflow.jobs.rows import evaluate_rows
from llsflow.jobs.service import ROWS_AT_ONCE, JobsService
from llsflow.jobs.state import alive
from llsflow.schema.benchmarks import Benchmark, BenchmarkConfig, EvaluateRowsRequest
from llsflow.schema.datasets import RegisterDatasetRequest
from llsflow.schema.jobs import JobStatus, SupervisedFineTuneRequest
from llsflow.schema.server import JobsConfig, ServerConfig
from llsflow.store import Store, StoredCheckpoint, StoredJob
from tests.jobs.conftest import ScriptedPrefect
from tests.jobs.test_requests import QUESTIONS, ROWS, body

SERVER = ServerConfig(default_model="tiny-llama")
CANDIDATE = {"eval_candidate": {"type": "model", "model": "tiny-llama", "sampling_params": {"max_tokens": 4}}}


@pytest.fixture
def service(store: Store, prefect: ScriptedPrefect) -> JobsService:
    for dataset_id, purpose, rows in (
        ("mine", "post-training/messages", ROWS),
        ("asked", "eval/question-answer", QUESTIONS),
    ):
        source = {"type": "rows", "rows": rows}
        register(
            store,
            RegisterDatasetRequest.model_validate({"dataset_id": dataset_id, "purpose": purpose, "source": source}),
            SERVER,
        )

    def benchmark(benchmark_id: str) -> Benchmark:
        return Benchmark(
            identifier=benchmark_id, provider_id="llsflow", dataset_id="asked", scoring_functions=["basic::equality"]
        )

    def engine_url() -> str:
        raise UnavailableError("the inference engine is starting")

    return JobsService(store, SERVER, prefect, CatalogueNames(store), compile_job, benchmark, engine_url)


def request(**changes: Any) -> SupervisedFineTuneRequest:
    return SupervisedFineTuneRequest.model_validate(body(**changes), extra="ignore")


def test_a_job_is_stored_with_its_yaml_and_submitted(
    service: JobsService, store: Store, prefect: ScriptedPrefect
) -> None:
    service.fine_tune(request())
    found = service.job("j1", "post-training")
    assert found.status is JobStatus.SCHEDULED
    assert found.flow_run_id == "j1:1"
    assert found.datasets == ["mine"]
    assert found.config == config_file("j1").read_text()
    assert "store://mine?rows=20" in found.config
    assert prefect.submitted == [("j1", 1)]


def test_the_same_request_again_is_the_same_job(service: JobsService, prefect: ScriptedPrefect) -> None:
    first = service.fine_tune(request())
    again = service.fine_tune(request())
    assert again.job_id == first.job_id
    assert len(prefect.submitted) == 1
    with pytest.raises(ConflictError, match="from a different request"):
        service.fine_tune(request(training_config__n_epochs=2))


def test_many_of_the_same_request_at_once_are_one_job(service: JobsService, prefect: ScriptedPrefect) -> None:
    threads = [threading.Thread(target=service.fine_tune, args=(request(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert prefect.submitted == [("j1", 1)]


def test_a_job_that_nobody_takes_is_not_there(service: JobsService, store: Store, prefect: ScriptedPrefect) -> None:
    prefect.up = False
    with pytest.raises(UnavailableError):
        service.fine_tune(request())
    assert store.jobs.get("j1") is None
    prefect.up = True
    assert service.fine_tune(request()).status is JobStatus.SCHEDULED


def test_a_job_that_prefect_took_without_an_answer_is_the_same_flow_run_later(
    service: JobsService, store: Store, prefect: ScriptedPrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect.up = False
    monkeypatch.setattr(prefect, "ready", lambda: True)
    assert service.fine_tune(request()).status is JobStatus.SCHEDULED
    assert service.job("j1", "post-training").flow_run_id is None
    prefect.up = True
    Reconciler(store, prefect, JobsConfig()).once()
    assert prefect.submitted == [("j1", 1)]


def test_the_longest_names_of_odd_letters_are_names_of_files(service: JobsService) -> None:
    for name in ("a" + "/a" * 99, "a" + ":" * 199, "a" + "/a" * 99 + ":"):
        service.fine_tune(request(job_uuid=name))
        assert "tiny-llama" in config_file(name).read_text()
        assert not alive(name)


def test_a_refused_request_changes_nothing(service: JobsService, store: Store, prefect: ScriptedPrefect) -> None:
    with pytest.raises(ConfigError):
        service.fine_tune(request(hyperparam_search_config={"lr": [1]}))
    assert store.jobs.get("j1") is None
    assert not config_file("j1").exists()
    assert prefect.submitted == []


def test_what_the_plan_refuses_is_told_where_it_stands_in_the_request(service: JobsService) -> None:
    data = {**body()["training_config"]["data_config"], "validation_dataset_id": "mine"}
    with pytest.raises(DataError) as refused:
        service.fine_tune(request(training_config__data_config=data))
    assert [mistake.where for mistake in refused.value.mistakes] == [
        "training_config.data_config.validation_dataset_id"
    ]


def test_an_evaluation_is_a_job_each_time_unless_the_client_says_that_it_repeats(service: JobsService) -> None:
    config = BenchmarkConfig.model_validate(CANDIDATE)
    first = service.evaluate("b1", config)
    assert service.evaluate("b1", config, retried=True).job_id == first.job_id
    assert service.evaluate("b1", config).job_id != first.job_id
    other = BenchmarkConfig.model_validate({**CANDIDATE, "num_examples": 2})
    assert service.evaluate("b1", other, retried=True).job_id not in {first.job_id}
    with pytest.raises(NotFoundError, match="of benchmark 'b2'"):
        service.job(first.job_id, "eval", "b2")
    with pytest.raises(NotFoundError, match="no post-training job"):
        service.job(first.job_id, "post-training")
    with pytest.raises(ConflictError, match="has no result: it is scheduled"):
        service.result(first.job_id, "b1")


def test_a_job_that_waits_is_cancelled_at_once_and_an_ended_one_not_at_all(
    service: JobsService, prefect: ScriptedPrefect
) -> None:
    service.fine_tune(request())
    service.cancel("j1", "post-training")
    found = service.job("j1", "post-training")
    assert found.status is JobStatus.CANCELLED
    assert found.completed_at is not None
    assert prefect.cancelled == ["j1:1"]
    with pytest.raises(ConflictError, match="has ended already: it is cancelled"):
        service.cancel("j1", "post-training")
    with pytest.raises(NotFoundError):
        service.cancel("j2", "post-training")


def test_a_job_under_way_is_asked_to_stop(service: JobsService, store: Store, job: Callable[..., StoredJob]) -> None:
    job("j3", status=JobStatus.IN_PROGRESS)
    service.cancel("j3", "post-training")
    found = service.job("j3", "post-training")
    assert (found.status, found.cancel_requested) == (JobStatus.IN_PROGRESS, True)


def test_checkpoints_are_listed_by_step_and_the_model_last(
    service: JobsService, store: Store, job: Callable[..., StoredJob]
) -> None:
    made = job("j4")
    metrics = {"epoch": 0, "train_loss": 0.5, "validation_loss": 0.6, "perplexity": 1.8}
    for identifier, step, found in (("j4", 4, metrics), ("j4:step-4", 4, metrics), ("j4:step-2", 2, None)):
        store.jobs.add_checkpoint(
            StoredCheckpoint(identifier, "j4", step, 0, f"train-x/{identifier}", made.created_at, found)
        )
    listed = service.checkpoints("j4")
    assert [checkpoint.identifier for checkpoint in listed] == ["j4:step-2", "j4:step-4", "j4"]
    assert listed[0].training_metrics is None
    assert listed[1].training_metrics is not None
    assert listed[1].training_metrics.perplexity == 1.8
    assert {"tiny-llama", "j4", "j4:step-2"} <= {model.identifier for model in service.models()}


def test_rows_wait_for_the_engine_and_not_for_ever(service: JobsService) -> None:
    asked = EvaluateRowsRequest.model_validate(
        {"benchmark_config": CANDIDATE, "input_rows": QUESTIONS, "scoring_functions": ["basic::equality"]}
    )
    with pytest.raises(UnavailableError, match="engine is starting"):
        service.evaluate_rows("b1", asked)
    with pytest.raises(ConfigError, match="no scoring function"):
        service.evaluate_rows("b1", asked.model_copy(update={"scoring_functions": ["basic::equal"]}))
    for _ in range(ROWS_AT_ONCE):
        assert service._waiting.acquire(blocking=False)
    with pytest.raises(UnavailableError, match="try again, or post a job"):
        service.evaluate_rows("b1", asked)


def test_parameters_of_a_scoring_function_that_is_not_asked_for_are_refused() -> None:
    config = {**CANDIDATE, "scoring_params": {"basic::subset_of": {"type": "basic"}}}
    asked = EvaluateRowsRequest.model_validate(
        {"benchmark_config": config, "input_rows": QUESTIONS, "scoring_functions": ["basic::equality"]}
    )
    with pytest.raises(ConfigError, match=r"benchmark_config.scoring_params.basic::subset_of: .*not in scoring_func"):
        evaluate_rows(asked, CatalogueNames(Store.open()), lambda: "http://127.0.0.1:1")
