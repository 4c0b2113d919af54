"""A whole session with the official client (pip install llama-stack-client==0.3.5) against `llsflow serve`.

Registers the quickstart's data, appends to it, fine-tunes a model, follows the job, evaluates the model before and
after, and cancels a job: `python docs/session.py [http://127.0.0.1:8321]`.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

from llama_stack_client import LlamaStackClient

DATA = Path(__file__).parents[1] / "conf" / "dataset" / "iso_dates"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of the quickstart's data."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def training_config(steps: int, batch_size: int) -> dict[str, Any]:
    """Return the quickstart's training, with so many optimizer steps."""
    return {
        "n_epochs": 1,
        "max_steps_per_epoch": steps,
        "gradient_accumulation_steps": 1,
        "max_validation_steps": 50,
        "dtype": "fp32",
        "data_config": {
            "dataset_id": "dates",
            "batch_size": batch_size,
            "shuffle": True,
            "data_format": "instruct",
        },
        "optimizer_config": {"optimizer_type": "adamw", "lr": 3e-3, "weight_decay": 0.01, "num_warmup_steps": 30},
    }


def evaluate(client: LlamaStackClient, model: str, num_examples: int | None) -> float:
    """Evaluate a model on the held-out dates as a job, and return its accuracy."""
    candidate = {
        "type": "model",
        "model": model,
        "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 16},
    }
    config: dict[str, Any] = {"eval_candidate": candidate, "scoring_params": {}}
    if num_examples:
        config["num_examples"] = num_examples
    job = client.alpha.eval.run_eval("dates-benchmark", benchmark_config=config)
    while job.status not in ("completed", "failed", "cancelled"):
        time.sleep(0.5)
        job = client.alpha.eval.jobs.status(job.job_id, benchmark_id="dates-benchmark")
    print(f"  {model}: job {job.job_id} {job.status} {getattr(job, 'error', None) or ''}")
    response = client.alpha.eval.jobs.retrieve(job.job_id, benchmark_id="dates-benchmark")
    return float(response.scores["basic::equality"].aggregated_results["accuracy"]["accuracy"])  # type: ignore[index, call-overload]


def fine_tune(client: LlamaStackClient, job_uuid: str, model: str, training: dict[str, Any]) -> None:
    """Start a fine-tuning job."""
    client.alpha.post_training.supervised_fine_tune(
        job_uuid=job_uuid,
        model=model,
        training_config=training,  # type: ignore[arg-type]
        hyperparam_search_config={},
        logger_config={},
    )


def follow(client: LlamaStackClient, job_uuid: str) -> str:
    """Wait for a training job, tell how it goes, and return its status."""
    while True:
        job = client.alpha.post_training.job.status(job_uuid=job_uuid)
        progress = getattr(job, "progress", None) or {}
        print(f"  {job.status} {progress.get('step', '')} {progress.get('done', '')}/{progress.get('total', '')}")
        if job.status in ("completed", "failed", "cancelled"):
            if job.status == "failed":
                print(f"  {getattr(job, 'error', '')}")
            return str(job.status)
        time.sleep(1.0)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Do the session, and return its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8321")
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--examples", type=int, help="benchmark rows; all where it is not said")
    options = parser.parse_args(arguments)
    client = LlamaStackClient(base_url=options.url)

    train = rows("train.csv")
    client.datasets.register(
        dataset_id="dates", purpose="post-training/messages", source={"type": "rows", "rows": train[:-100]}
    )
    client.datasets.appendrows("dates", rows=train[-100:])
    page = client.datasets.iterrows("dates", start_index=len(train) - 2, limit=100)
    print(f"data set dates: the last rows are {page.data}, has_more {page.has_more}")
    client.datasets.register(
        dataset_id="dates-held-out",
        purpose="eval/question-answer",
        source={"type": "rows", "rows": rows("held_out.csv")},
    )
    client.benchmarks.register(
        benchmark_id="dates-benchmark", dataset_id="dates-held-out", scoring_functions=["basic::equality"]
    )

    training = training_config(options.steps, options.batch_size)
    fine_tune(client, "dates-1", options.model, training)
    status = follow(client, "dates-1")
    artifacts = client.alpha.post_training.job.artifacts(job_uuid="dates-1")
    print("checkpoints:", ", ".join(checkpoint.identifier for checkpoint in artifacts.checkpoints))

    before = evaluate(client, options.model, options.examples)
    after = evaluate(client, "dates-1", options.examples)
    print(f"accuracy before {before:.3f}, after {after:.3f}")

    fine_tune(client, "dates-2", options.model, {**training, "n_epochs": 100, "max_steps_per_epoch": 0})
    client.alpha.post_training.job.cancel(job_uuid="dates-2")
    return {
        "status": status,
        "checkpoints": [checkpoint.identifier for checkpoint in artifacts.checkpoints],
        "before": before,
        "after": after,
        "cancelled": follow(client, "dates-2"),
    }


if __name__ == "__main__":
    print(main())
