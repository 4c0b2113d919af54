"""What a client meets at `llsflow serve`: a whole session, a cancel, and a machine that loses every process."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_stack_client import APIConnectionError, APIStatusError, LlamaStackClient

from tests.cli.serving import Serving, wait_for
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
ROWS = [{"prompt": f"say {number}", "completion": f"{number}!"} for number in range(40)]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(tmp_path_factory.mktemp("serving"))
    server.start("server.jobs.checkpoint_every_n_steps=2")
    yield server
    server.stop()
    assert server.processes() == []


def session_script() -> Any:
    spec = importlib.util.spec_from_file_location("session", ROOT / "docs" / "session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def training(dataset_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "n_epochs": 1,
        "max_steps_per_epoch": 0,
        "gradient_accumulation_steps": 1,
        "dtype": "fp32",
        "data_config": {"dataset_id": dataset_id, "batch_size": 4, "shuffle": True, "data_format": "instruct"},
        "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.0, "num_warmup_steps": 1},
        **changes,
    }


def begin(client: LlamaStackClient, job_uuid: str, config: dict[str, Any]) -> None:
    client.alpha.post_training.supervised_fine_tune(
        job_uuid=job_uuid,
        model="small",
        training_config=config,  # type: ignore[arg-type]
        hyperparam_search_config={},
        logger_config={},
    )


def status(client: LlamaStackClient, job_uuid: str) -> Any:
    return client.alpha.post_training.job.status(job_uuid=job_uuid)


def test_a_session_with_the_official_client_gets_the_numbers_of_the_command_line(serving: Serving) -> None:
    found = session_script().main([serving.url, "--model", "small", "--steps=6", "--batch-size=4", "--examples=5"])
    assert found["status"] == "completed"
    assert found["checkpoints"] == ["dates-1:step-2", "dates-1:step-4", "dates-1:step-6", "dates-1"]
    assert found["cancelled"] == "cancelled"

    small = ["model=small", "recipe.training_config.data_config.batch_size=4"]
    limits = ["recipe.training_config.max_steps_per_epoch=6", "benchmark.benchmark_config.num_examples=5"]
    told = serving.type("run", "quickstart", *small, *limits)
    # the data that was posted is the data of conf, and so the trained model is there already
    for step in ("model", "prepare", "train", "export"):
        assert f"✓ {step}" not in told
    (compared,) = (serving.home / "steps").glob("compare-*/result.json")
    (row,) = json.loads(compared.read_text())["summary"]["table"]
    assert (found["before"], found["after"]) == (row["base"], row["tuned"])

    told = serving.type("run", "--config", str(serving.home / "jobs" / "dates-1.yaml"))
    assert "nothing to do, all 5 steps are up to date" in told


def test_a_cancelled_job_keeps_its_checkpoint_and_leaves_no_process(serving: Serving) -> None:
    client = serving.client()
    client.datasets.register(
        dataset_id="long", purpose="post-training/messages", source={"type": "rows", "rows": ROWS[1:]}
    )
    begin(client, "long-1", training("long", n_epochs=5000))
    wait_for(lambda: client.alpha.post_training.job.artifacts(job_uuid="long-1").checkpoints, "a checkpoint")
    pid = status(client, "long-1").resources_allocated["pid"]
    client.alpha.post_training.job.cancel(job_uuid="long-1")
    wait_for(lambda: status(client, "long-1").status == "cancelled", "the cancel")
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of its process")
    job = status(client, "long-1")
    assert all(Path(checkpoint.path, "model.safetensors").is_file() for checkpoint in job.checkpoints)
    with sqlite3.connect(serving.home / "mlflow" / "mlflow.db") as store:
        ended = dict(store.execute("select name, status from runs").fetchall())
    assert ended["long-1"] == "KILLED"
    with pytest.raises(APIStatusError, match="has ended already: it is cancelled") as refused:
        client.with_options(max_retries=0).alpha.post_training.job.cancel(job_uuid="long-1")
    assert refused.value.status_code == 409


def test_rows_are_answered_while_the_client_waits(serving: Serving) -> None:
    client = serving.client()
    client.datasets.register(
        dataset_id="asked",
        purpose="eval/question-answer",
        source={"type": "rows", "rows": [{"question": "1?", "answer": "1"}]},
    )
    client.benchmarks.register(benchmark_id="b", dataset_id="asked", scoring_functions=["basic::equality"])
    wait_for(lambda: serving.part("engine") == "ok", "the engine")
    candidate = {"type": "model", "model": "small", "sampling_params": {"max_tokens": 4}}
    found = client.alpha.eval.evaluate_rows(
        "b",
        benchmark_config={"eval_candidate": candidate, "scoring_params": {}},  # type: ignore[typeddict-item]
        input_rows=[{"question": "1?", "answer": "1"}, {"no": "question"}],
        scoring_functions=["basic::equality"],
    )
    assert isinstance(found.generations[0]["generated_answer"], str)
    assert found.generations[1]["generated_answer"] is None
    rows = found.scores["basic::equality"].score_rows
    assert rows[0]["score"] in (0.0, 1.0)
    assert rows[1]["score"] is None


class Appender(threading.Thread):
    """Appends numbered rows until the server is gone, and knows which were acknowledged."""

    def __init__(self, client: LlamaStackClient) -> None:
        super().__init__(daemon=True)
        self.client = client.with_options(max_retries=0)
        self.acknowledged = 0

    def run(self) -> None:
        try:
            while True:
                number = self.acknowledged
                self.client.datasets.appendrows("kept", rows=[{"prompt": f"p{number}", "completion": f"c{number}"}])
                self.acknowledged += 1
        except (APIConnectionError, APIStatusError):
            pass


@pytest.mark.slow
def test_after_every_process_was_killed_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    serving.start("server.jobs.checkpoint_every_n_steps=2")
    client = serving.client()
    first = {"prompt": "the first", "completion": "row"}
    client.datasets.register(
        dataset_id="kept", purpose="post-training/messages", source={"type": "rows", "rows": [first]}
    )
    client.datasets.register(
        dataset_id="trained", purpose="post-training/messages", source={"type": "rows", "rows": ROWS}
    )
    questions = [{"question": f"{number}?", "answer": str(number)} for number in range(1600)]
    client.datasets.register(
        dataset_id="asked", purpose="eval/question-answer", source={"type": "rows", "rows": questions}
    )
    client.benchmarks.register(benchmark_id="b", dataset_id="asked", scoring_functions=["basic::equality"])
    begin(client, "train-1", training("trained", n_epochs=80))
    candidate = {"type": "model", "model": "small", "sampling_params": {"max_tokens": 200}}
    config: Any = {"eval_candidate": candidate, "scoring_params": {}}
    evaluation = client.alpha.eval.run_eval("b", benchmark_config=config).job_id

    wait_for(lambda: client.alpha.post_training.job.artifacts(job_uuid="train-1").checkpoints, "a checkpoint")
    wait_for(lambda: list((serving.home / "work").glob("evaluate-*/generations.jsonl")), "an answered row")
    appender = Appender(client)
    appender.start()
    wait_for(lambda: appender.acknowledged >= 20, "appended rows")
    serving.kill_everything()
    appender.join(timeout=PATIENCE_SECONDS)
    wait_for(lambda: not serving.processes(), "the end of every process")

    serving.start("server.jobs.checkpoint_every_n_steps=2")
    try:
        client = serving.client()
        rows = client.datasets.iterrows("kept").data
        assert appender.acknowledged <= len(rows) - 1 <= appender.acknowledged + 1
        assert [row["prompt"] for row in rows[1:]] == [f"p{number}" for number in range(len(rows) - 1)]
        wait_for(lambda: status(client, "train-1").status == "completed", "the training")
        wait_for(
            lambda: client.alpha.eval.jobs.status(evaluation, benchmark_id="b").status == "completed", "the evaluation"
        )
        (trained,) = (serving.home / "steps").glob("train-*/result.json")
        summary = json.loads(trained.read_text())["summary"]
        assert summary["steps"] == 800
        assert summary["resumed_from"] > 0
        answers = client.alpha.eval.jobs.retrieve(evaluation, benchmark_id="b").generations
        assert len(answers) == len(questions)
    finally:
        serving.stop()
    assert serving.processes() == []
