"""Several devices: real processes that exchange gradients, with the losses of one process on the same batches."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from llsflow.config import load_experiment
from llsflow.errors import ConfigError, Stopped, TrainingError
from llsflow.models.load import load_model, load_tokenizer
from llsflow.schema.training import TrainerConfig
from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import FitHooks, FitResult
from tests.patience import PATIENCE_SECONDS
from tests.training.test_fit import recipe, rows, run, same, stop_after, weights

TWO = TrainerConfig(accelerator="cpu", devices=2, num_threads=1)


def losses(result: FitResult, name: str = "train/loss") -> list[float]:
    return [value for _, value in result.curves[name]]


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_train_as_one_does_on_the_same_batches(
    tiny_folder: Path, tmp_path: Path, accumulation: int
) -> None:
    """22 rows in batches of 4 are 6 batches an epoch: with 4 a step, the last step leaves devices over."""
    validation = ExampleTable(rows(9, 1))
    two_used = recipe(training={"gradient_accumulation_steps": accumulation, "max_validation_steps": 0})
    two = run(tmp_path / "two", tiny_folder, two_used, train=ExampleTable(rows(17)), trainer=TWO, validation=validation)
    one_used = recipe(training={"gradient_accumulation_steps": 2 * accumulation, "max_validation_steps": 0})
    one = run(tmp_path / "one", tiny_folder, one_used, train=ExampleTable(rows(17)), validation=validation)
    assert two.steps == one.steps
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert losses(two, "train/grad_norm") == pytest.approx(losses(one, "train/grad_norm"), rel=1e-4)
    assert losses(two, "val/loss") == pytest.approx(losses(one, "val/loss"), rel=1e-5)
    assert two.tokens == one.tokens == 2 * len(rows(17).input_ids)
    for name, weight in weights(one).items():
        assert torch.allclose(weights(two)[name], weight, atol=1e-5), name
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_two_processes_resume_where_they_were_stopped(tiny_folder: Path, tmp_path: Path) -> None:
    unbroken = run(tmp_path / "a", tiny_folder, recipe(), trainer=TWO)
    with pytest.raises(Stopped, match="optimizer step 2 of 6"):
        run(tmp_path / "b", tiny_folder, recipe(), FitHooks(stopping=stop_after(2)), trainer=TWO)
    resumed = run(tmp_path / "b", tiny_folder, recipe(), trainer=TWO)
    assert resumed.resumed_from == 2
    assert same(weights(unbroken), weights(resumed))


def test_rows_that_break_the_loss_are_named_on_whichever_device_they_are(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(tiny_folder)
    model.get_input_embeddings().weight.data[250] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    load_tokenizer(tiny_folder).save_pretrained(tmp_path / "broken")
    table = rows()
    table.input_ids[table.offsets[13]] = 250  # row 14, of the fourth batch: the second device's in the second step
    inputs: dict[str, Any] = {"train": ExampleTable(table), "trainer": TWO}
    used = recipe(data={"shuffle": False})
    with pytest.raises(TrainingError, match=r"the loss of step 2 is nan: .* rows 13, 14, 15, 16$"):
        run(tmp_path / "run", tmp_path / "broken", used, **inputs)


def test_another_device_that_fails_is_told(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_the_other(report: Any, total: int) -> None:
        for child in psutil.Process().children():
            if "llsflow.training.other_device" in child.cmdline():
                child.kill()

    with pytest.raises(TrainingError, match=r"device 1 failed: it ended with status -9"):
        run(tmp_path, tiny_folder, recipe(), FitHooks(on_step=kill_the_other), trainer=TWO)


SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_devices import TWO
from tests.training.test_fit import recipe, run
from llsflow.training.inputs import FitHooks
print("began", flush=True)
hooks = FitHooks(on_step=lambda report, total: print("step", report.step, flush=True))
run(Path(sys.argv[1]), Path(sys.argv[2]), recipe(training={"n_epochs": 10_000}), hooks, trainer=TWO)
"""


def test_killed_with_9_no_device_is_left_behind(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(tiny_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(line for line in lines if line.startswith("step")) == "step 1\n"
        others = psutil.Process(process.pid).children(recursive=True)
        assert len(others) == 1
        process.kill()
    gone, alive = psutil.wait_procs(others, timeout=PATIENCE_SECONDS)
    assert (len(gone), alive) == (1, [])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+trainer.nodes=2"], "trainer.nodes=2: a run keeps its work and its stop on one machine"),
        (["+trainer.strategy=ddp"], "trainer.strategy=ddp: ddp is for several devices: set trainer.devices"),
        (["+trainer.strategy=fsdp", "trainer.devices=2", "recipe=sft_lora"], "adapters are small: take ddp"),
    ],
)
def test_what_devices_cannot_do_is_told_with_the_plan(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_experiment("quickstart", [*overrides])


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [True, False])
def test_weights_shared_out_train_as_one_process_does(tiny_folder: Path, tmp_path: Path, wrap: bool) -> None:
    """FSDP: the same losses, checkpoints as one process would write them, and a resume from them."""
    sharded = TrainerConfig(accelerator="cpu", devices=2, num_threads=1, strategy="fsdp")
    saving = {"efficiency_config": {"memory_efficient_fsdp_wrap": wrap}, "max_validation_steps": 0}
    more: dict[str, Any] = {"train": ExampleTable(rows(17)), "validation": ExampleTable(rows(9, 1))}
    one_used = recipe(training={"gradient_accumulation_steps": 4, **saving})
    one = run(tmp_path / "one", tiny_folder, one_used, **more)
    used = recipe(training={"gradient_accumulation_steps": 2, **saving})
    two = run(tmp_path / "two", tiny_folder, used, trainer=sharded, **more)
    for name in ("train/loss", "val/loss"):
        assert losses(two, name) == pytest.approx(losses(one, name), rel=1e-5)
    assert losses(two, "train/grad_norm") == pytest.approx(losses(one, "train/grad_norm"), rel=1e-4)
    for name, weight in weights(one).items():
        assert torch.allclose(weights(two)[name], weight, atol=1e-5), name
    with pytest.raises(Stopped):
        run(tmp_path / "broken", tiny_folder, used, FitHooks(stopping=stop_after(2)), trainer=sharded, **more)
    assert same(weights(two), weights(run(tmp_path / "broken", tiny_folder, used, trainer=sharded, **more)))
