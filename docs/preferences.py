"""Preference optimisation with the official client (pip install llama-stack-client==0.3.5) against `llsflow serve`.

Fine-tunes a model that writes dates in two styles, then has it prefer one of them, and tells how often it writes that
one on dates it never saw: `python docs/preferences.py [http://127.0.0.1:8321]`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from llama_stack_client import LlamaStackClient
from session import evaluate, fine_tune, follow, rows, training_config

STYLES = Path(__file__).parents[1] / "conf" / "dataset" / "date_styles"


def styles(name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of the two styles' data."""
    with (STYLES / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def register(client: LlamaStackClient) -> None:
    """Register the data and the benchmark; of the preferences every tenth is held out."""
    preferences = styles("preferences.csv")
    held_out = preferences[::10]
    for dataset_id, found in (
        ("styles", styles("train.csv")),
        ("preferences", [row for row in preferences if row not in held_out]),
        ("preferences-held-out", held_out),
    ):
        client.datasets.register(
            dataset_id=dataset_id, purpose="post-training/messages", source={"type": "rows", "rows": found}
        )
    client.datasets.register(
        dataset_id="dates-held-out",
        purpose="eval/question-answer",
        source={"type": "rows", "rows": rows("held_out.csv")},
    )
    client.benchmarks.register(
        benchmark_id="dates-benchmark", dataset_id="dates-held-out", scoring_functions=["basic::equality"]
    )


def training(dataset_id: str, batch_size: int, lr: float, epochs: int, **data: Any) -> dict[str, Any]:
    """Return a training_config on whole epochs of a data set."""
    config = training_config(0, batch_size)
    return {
        **config,
        "n_epochs": epochs,
        "max_validation_steps": 0,
        "data_config": {**config["data_config"], "dataset_id": dataset_id, **data},
        "optimizer_config": {**config["optimizer_config"], "lr": lr, "num_warmup_steps": 10},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Do the session, and return its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8321")
    client = LlamaStackClient(base_url=parser.parse_args(arguments).url)
    register(client)

    fine_tune(client, "two-styles", "tiny-llama", training("styles", 64, 3e-3, 2))
    follow(client, "two-styles")
    client.alpha.post_training.preference_optimize(
        job_uuid="one-style",
        finetuned_model="two-styles",
        algorithm_config={"beta": 0.1, "loss_type": "sigmoid"},
        training_config=training(  # type: ignore[arg-type]
            "preferences", 16, 2e-5, 1, validation_dataset_id="preferences-held-out"
        ),
        hyperparam_search_config={},
        logger_config={},
    )
    status = follow(client, "one-style")
    metrics: dict[str, float] = getattr(client.alpha.post_training.job.status(job_uuid="one-style"), "metrics", {})
    before, after = (evaluate(client, model, None) for model in ("two-styles", "one-style"))
    print(f"the preferred style: {before:.3f} before, {after:.3f} after")
    return {
        "status": status,
        "before": before,
        "after": after,
        "reward_accuracy": metrics["validation_reward_accuracy"],
    }


if __name__ == "__main__":
    print(main())
