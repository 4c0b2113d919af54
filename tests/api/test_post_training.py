"""Training jobs over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from llama_stack_client import ConflictError, NotFoundError

from llsflow.schema.jobs import JobStatus
from llsflow.store import StoredCheckpoint
from tests.api.conftest import Served
from tests.api.errors import assert_error

PATH = "/v1alpha/post-training"
TRAINING: dict[str, Any] = {
    "n_epochs": 1,
    "max_steps_per_epoch": 0,
    "gradient_accumulation_steps": 1,
    "data_config": {"dataset_id": "sums", "batch_size": 4, "shuffle": True, "data_format": "instruct"},
    "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.0, "num_warmup_steps": 0},
}
REQUEST: dict[str, Any] = {
    "job_uuid": "first",
    "training_config": TRAINING,
    "hyperparam_search_config": {},
    "logger_config": {},
    "model": "tiny",
}


def test_the_official_client(served: Served) -> None:
    training = served.client.alpha.post_training
    assert training.supervised_fine_tune(**REQUEST).job_uuid == "first"
    # a client that got no answer sends the same again
    assert training.supervised_fine_tune(**REQUEST).job_uuid == "first"
    with pytest.raises(ConflictError):
        training.supervised_fine_tune(**{**REQUEST, "model": "other"})
    assert [job.job_uuid for job in training.job.list()] == ["first"]
    status = training.job.status(job_uuid="first")
    assert (status.job_uuid, status.status, status.checkpoints) == ("first", "scheduled", [])
    _checkpoint(served)
    (checkpoint,) = training.job.artifacts(job_uuid="first").checkpoints
    assert (checkpoint.identifier, checkpoint.epoch, checkpoint.training_metrics.train_loss) == (  # type: ignore[union-attr]
        "first-step-10",
        0,
        0.5,
    )
    assert training.job.status(job_uuid="first").checkpoints[0].to_dict() == checkpoint.to_dict()
    training.job.cancel(job_uuid="first")
    assert training.job.status(job_uuid="first").status == "cancelled"
    with pytest.raises(ConflictError):
        training.job.cancel(job_uuid="first")
    with pytest.raises(NotFoundError):
        training.job.status(job_uuid="none")
    second = training.preference_optimize(
        job_uuid="second",
        finetuned_model="tiny",
        algorithm_config={"beta": 0.1, "loss_type": "sigmoid"},
        training_config=TRAINING,  # type: ignore[arg-type]
        hyperparam_search_config={},
        logger_config={},
    )
    assert second.job_uuid == "second"
    asked = served.services.jobs.asked[-1]  # type: ignore[attr-defined]
    assert (asked.finetuned_model, asked.algorithm_config.beta, asked.algorithm_config.loss_type) == (
        "tiny",
        0.1,
        "sigmoid",
    )


def test_a_status_tells_more_than_the_specification(served: Served) -> None:
    served.http.post(f"{PATH}/supervised-fine-tune", json=REQUEST)
    served.services.store.jobs.update(
        "first",
        status=JobStatus.FAILED,
        error="the loss is not a number",
        progress={"step": "train", "step_index": 2, "steps": 4, "done": 3, "total": 10, "unit": "steps"},
        metrics={"train_loss": 2.5},
        links={"mlflow": "http://127.0.0.1:5000/#/1"},
    )
    found = served.http.get(f"{PATH}/job/status", params={"job_uuid": "first"}).json()
    assert (found["error"], found["progress"]["done"], found["metrics"]) == (
        "the loss is not a number",
        3,
        {"train_loss": 2.5},
    )


def test_a_bare_training_config_is_a_job_with_a_name_of_its_own(served: Served) -> None:
    first, second = (served.http.post(f"{PATH}/supervised-fine-tune", json=TRAINING).json() for _ in range(2))
    assert first["job_uuid"] != second["job_uuid"]
    asked = served.services.jobs.asked[-1]  # type: ignore[attr-defined]
    assert (asked.model, asked.training_config.n_epochs) == (None, 1)
    named = served.http.post(
        f"{PATH}/supervised-fine-tune", json=TRAINING, params={"job_uuid": "named", "model": "tiny"}
    )
    assert named.json()["job_uuid"] == "named"
    assert served.services.jobs.asked[-1].model == "tiny"  # type: ignore[attr-defined]


def test_a_bare_alignment_config_lacks_the_rest(http: httpx.Client) -> None:
    refused = http.post(f"{PATH}/preference-optimize", json={"beta": 0.1, "loss_type": "hinge"})
    assert_error(refused, 400, "job_uuid: is missing", "finetuned_model: is missing", "training_config: is missing")
    wrong = http.post(f"{PATH}/preference-optimize", json={"beta": 0, "loss_type": "hinges"})
    assert_error(wrong, 400, "beta: found 0, allowed: a number above 0", "loss_type: found 'hinges'", "'hinge'?")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"job_uuid": None}, "job_uuid: found null, allowed: a name"),
        ({"training_config": {**TRAINING, "n_epochs": 0}}, "training_config.n_epochs: found 0, allowed: an integer of"),
        (
            {"training_config": {**TRAINING, "dtype": "int8"}},
            "training_config.dtype: found 'int8', allowed: ",
        ),
        (
            {"training_config": {**TRAINING, "optimizer_config": {"optimizer_type": "lion"}}},
            "training_config.optimizer_config.optimizer_type: found 'lion', allowed: one of adam, adamw, sgd",
        ),
        (
            {"algorithm_config": {"type": "lora"}},
            "algorithm_config.type: found 'lora', allowed: LoRA, QAT",
        ),
        (
            {"training_config": {**TRAINING, "efficiency_config": {"fsdp_cpu_offload": "yes"}}},
            "training_config.efficiency_config.fsdp_cpu_offload: found 'yes', allowed: true or false",
        ),
    ],
)
def test_refusals(http: httpx.Client, change: dict[str, Any], told: str) -> None:
    assert_error(http.post(f"{PATH}/supervised-fine-tune", json={**REQUEST, **change}), 400, told)
    assert http.get(f"{PATH}/jobs").json() == {"data": []}


@pytest.mark.parametrize("form", ["json", "params"])
def test_cancelling_in_both_forms(http: httpx.Client, form: str) -> None:
    http.post(f"{PATH}/supervised-fine-tune", json=REQUEST)
    cancelled = http.request("POST", f"{PATH}/job/cancel", **{form: {"job_uuid": "first"}})  # type: ignore[arg-type]
    assert (cancelled.status_code, cancelled.json()) == (200, None)
    again = http.post(f"{PATH}/job/cancel", params={"args": "x", "kwargs": "y"}, json={"job_uuid": "first"})
    assert_error(again, 409, "has ended")
    assert_error(http.post(f"{PATH}/job/cancel", params={"args": "x", "kwargs": "y"}), 400, "job_uuid: is missing")


@pytest.mark.parametrize("path", ["job/status", "job/artifacts"])
def test_a_job_must_be_named(http: httpx.Client, path: str) -> None:
    assert_error(http.get(f"{PATH}/{path}"), 400, "job_uuid: is missing")
    assert_error(http.get(f"{PATH}/{path}", params={"job_uuid": "none"}), 404, "none")


def _checkpoint(served: Served) -> None:
    metrics = {"epoch": 0, "train_loss": 0.5, "validation_loss": 0.6, "perplexity": 1.8}
    served.services.store.jobs.add_checkpoint(
        StoredCheckpoint("first-step-10", "first", 10, 0, "train/checkpoints/10", datetime.now(UTC), metrics)
    )
