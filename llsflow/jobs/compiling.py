"""An experiment as a job keeps it: its YAML, and the key of its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llsflow import home
from llsflow.config import load_experiment, to_yaml
from llsflow.jobs.state import file_name
from llsflow.plan import compile_plan
from llsflow.schema.experiment import Experiment


@dataclass(frozen=True)
class Compiled:
    """What is stored of a plan."""

    config: str
    """The experiment as YAML, with every path absolute: `llsflow run --config` runs it again."""
    plan_key: str


def compile_job(experiment: Experiment) -> Compiled:
    """Check the experiment against this machine, and compile its plan; may read a whole data set once.

    Raises:
        DataError: everything that is wrong with the model and the rows, at once.
    """
    plan = compile_plan(experiment)
    return Compiled(to_yaml(plan.experiment), plan.key)


def settle_record(job_id: str) -> None:
    """End the MLflow records of processes that were killed, where the job has its own.

    Raises:
        LlsflowError: MLflow does not answer, or the job's YAML is gone.
    """
    from llsflow.steps.opening import settle

    settle(load_experiment(None, [], config_file=config_file(job_id)).experiment.tracking)


def config_file(job_id: str) -> Path:
    """Return where the YAML of a job lies."""
    return home.home() / "jobs" / f"{file_name(job_id)}.yaml"


def write_config(job_id: str, config: str) -> Path:
    """Write the YAML of a job unless it is there, and return its path."""
    path = config_file(job_id)
    with home.storage_errors(home.home()):
        if not path.exists() or path.read_text("utf-8") != config:
            home.write_aside(path, config)
    return path
