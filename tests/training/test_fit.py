"""Training: the same step whatever the micro-batches, and a resume that nobody can tell from an unbroken run."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llsflow.data.tokens import TokenTable
from llsflow.errors import Stopped, TrainingError
from llsflow.models.adapters import load_merged
from llsflow.models.build import build
from llsflow.models.load import load_model, load_tokenizer
from llsflow.schema.models import ModelInit
from llsflow.schema.training import Recipe, TrainerConfig
from llsflow.training import checkpoints, module
from llsflow.training.examples import ExampleTable
from llsflow.training.fit import fit
from llsflow.training.inputs import FitHooks, FitInputs, FitResult
from llsflow.training.module import StepReport
from tests.conftest import TWO_LAYERS


def rows(count: int = 24, seed: int = 0) -> TokenTable:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(6, 20, size=count)
    ids = generator.integers(5, 200, size=int(lengths.sum())).astype(np.int32)
    mask = generator.random(len(ids)) < 0.6
    mask[np.cumsum(lengths) - 1] = True
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenTable(ids, mask, offsets, np.arange(count) + 1)


def recipe(**changes: Any) -> Recipe:
    data = {"dataset_id": "d", "batch_size": 4, "shuffle": True, "data_format": "instruct"}
    optimizer = {"optimizer_type": "adamw", "lr": 1e-2, "weight_decay": 0.01, "num_warmup_steps": 2}
    training = {
        "n_epochs": 2,
        "max_steps_per_epoch": 0,
        "dtype": "fp32",
        "data_config": {**data, **changes.pop("data", {})},
        "optimizer_config": {**optimizer, **changes.pop("optimizer", {})},
        **changes.pop("training", {}),
    }
    return Recipe.model_validate({"kind": "sft", "training_config": training, "log_every_n_steps": 1, **changes})


def inputs_of(tiny: Path, used: Recipe, **changes: Any) -> FitInputs:
    inputs = {
        "model": str(tiny),
        "load": {},
        "tokenizer": load_tokenizer(tiny),
        "train": ExampleTable(rows()),
        "validation": None,
        "recipe": used,
        "trainer": TrainerConfig(accelerator="cpu"),
        "seed": 5,
        **changes,
    }
    return FitInputs(**inputs)


def run(folder: Path, tiny: Path, used: Recipe, hooks: FitHooks | None = None, **changes: Any) -> FitResult:
    return fit(inputs_of(tiny, used, **changes), folder, hooks or FitHooks())


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return dict(load_merged(result.checkpoint).state_dict())


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def stop_after(steps: int) -> Callable[[], bool]:
    asked = itertools.count(1)
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_a_resumed_run_ends_with_the_unbroken_runs_weights(tiny_folder: Path, tmp_path: Path, stop_at: int) -> None:
    used = recipe(training={"gradient_accumulation_steps": 2, "n_epochs": 3})
    unbroken = run(tmp_path / "a", tiny_folder, used)
    with pytest.raises(Stopped, match=f"optimizer step {stop_at} of 9"):
        run(tmp_path / "b", tiny_folder, used, FitHooks(stopping=stop_after(stop_at)))
    resumed = run(tmp_path / "b", tiny_folder, used)
    assert resumed.resumed_from == stop_at
    assert same(weights(unbroken), weights(resumed))
    assert resumed.curves["train/loss"] == unbroken.curves["train/loss"]


def test_sigterm_stops_at_the_next_step_wherever_it_comes(tiny_folder: Path, tmp_path: Path) -> None:
    """Also in the middle of a checkpoint, where Lightning's own handler would end training without another."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())

    def interrupt(checkpoint: checkpoints.Checkpoint) -> None:
        if checkpoint.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    hooks = FitHooks(stopping=asked.is_set, on_checkpoint=interrupt)
    try:
        with pytest.raises(Stopped, match="optimizer step 3 of"):
            run(tmp_path / "a", tiny_folder, recipe(checkpoint_every_n_steps=2), hooks)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [found.step for found in checkpoints.find(tmp_path / "a" / "checkpoints")][-1] == 3


def test_a_resumed_run_draws_the_unbroken_runs_dropout(tmp_path: Path) -> None:
    folder = tmp_path / "dropout"
    build(ModelInit(architecture={**TWO_LAYERS, "attention_dropout": 0.3}), 0, folder)
    unbroken = run(tmp_path / "a", folder, recipe())
    with pytest.raises(Stopped):
        run(tmp_path / "b", folder, recipe(), FitHooks(stopping=stop_after(5)))
    torch.manual_seed(99)
    assert same(weights(unbroken), weights(run(tmp_path / "b", folder, recipe())))
    without = tmp_path / "without"
    build(ModelInit(architecture=TWO_LAYERS), 0, without)
    assert not same(weights(unbroken), weights(run(tmp_path / "c", without, recipe()))), "dropout did nothing"


@pytest.mark.parametrize("packed", [False, True])
def test_with_workers_dropout_and_accumulation_it_goes_on_in_the_middle_of_an_epoch(
    tmp_path: Path, packed: bool
) -> None:
    """All at once, as a user has it: 24 rows, 3 micro-batches of 2 rows a step, 4 steps an epoch; stopped in each."""
    folder = tmp_path / "dropout"
    build(ModelInit(architecture={**TWO_LAYERS, "attention_dropout": 0.2}), 0, folder)
    data = {"packed": True, "batch_size": 1} if packed else {"batch_size": 2}
    used = recipe(data=data, training={"gradient_accumulation_steps": 3}, packed_length=32)
    workers = TrainerConfig(accelerator="cpu", num_workers=2)
    unbroken = run(tmp_path / "a", folder, used, trainer=workers)
    assert unbroken.steps >= 6
    for stop_at in (1, 3, 2):
        with pytest.raises(Stopped):
            run(tmp_path / "b", folder, used, FitHooks(stopping=stop_after(stop_at)), trainer=workers)
    with pytest.raises(Stopped):  # the workers change nothing
        run(tmp_path / "c", folder, used, FitHooks(stopping=stop_after(3)))
    for where in ("b", "c"):
        resumed = run(tmp_path / where, folder, used, trainer=workers)
        assert same(weights(unbroken), weights(resumed))
        assert resumed.curves["train/loss"] == unbroken.curves["train/loss"]


def test_packed_and_unpacked_training_make_the_same_step(tiny_folder: Path, tmp_path: Path) -> None:
    order = {"shuffle": False}
    packed = run(
        tmp_path / "a", tiny_folder, recipe(data={**order, "packed": True, "batch_size": 1}, packed_length=10_000)
    )
    plain = run(tmp_path / "b", tiny_folder, recipe(data={**order, "batch_size": 24}))
    assert packed.steps == plain.steps == 2
    assert [loss for _, loss in packed.curves["train/loss"]] == pytest.approx(
        [loss for _, loss in plain.curves["train/loss"]], rel=1e-5
    )


@pytest.mark.parametrize("file", [checkpoints.STATE, "model.safetensors"])
@pytest.mark.parametrize("cut_off", [True, False])
def test_a_damaged_checkpoint_is_passed_over(tiny_folder: Path, tmp_path: Path, file: str, cut_off: bool) -> None:
    used = recipe(checkpoint_every_n_steps=2, keep_checkpoints=9)
    whole = run(tmp_path, tiny_folder, used)
    found = checkpoints.find(tmp_path / "checkpoints")
    assert [checkpoint.step for checkpoint in found] == [2, 4, 6, 8, 10, 12]
    newest = found[-1].folder / file
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content[:100] if cut_off else content)
    again = run(tmp_path, tiny_folder, used)
    assert again.resumed_from == 10
    assert same(weights(whole), weights(again))


def test_the_best_checkpoint_stays_and_is_marked(tiny_folder: Path, tmp_path: Path) -> None:
    """The learning rate ruins the model after a while; the best is found by the validation loss."""
    used = recipe(
        checkpoint_every_n_steps=1,
        keep_checkpoints=1,
        validate_every_n_steps=1,
        lr_schedule="constant",
        optimizer={"lr": 0.5, "num_warmup_steps": 12},
    )
    result = run(tmp_path, tiny_folder, used, validation=ExampleTable(rows(9, 1)))
    points = [(loss, step) for step, loss in result.curves["val/loss"] if step]
    best = min(points)[1]
    assert best < 12
    folder = tmp_path / "checkpoints"
    assert [checkpoint.step for checkpoint in checkpoints.find(folder)] == [best, 12]
    assert (folder / checkpoints.BEST).resolve() == folder / f"step-{best:08d}"


def test_a_validation_that_is_the_best_so_far_makes_a_checkpoint(tiny_folder: Path, tmp_path: Path) -> None:
    """Whatever checkpoint_every_n_steps, and with a stop between: a later validation that is worse makes none."""
    used = recipe(
        keep_checkpoints=None,
        checkpoint_every_n_steps=100,
        validate_every_n_steps=2,
        lr_schedule="constant",
        optimizer={"lr": 0.5, "num_warmup_steps": 12},
    )
    validation = ExampleTable(rows(9, 1))
    result = run(tmp_path / "one", tiny_folder, used, validation=validation)
    points = [(step, loss) for step, loss in result.curves["val/loss"] if step]
    bettered = [step for at, (step, loss) in enumerate(points) if all(loss < before for _, before in points[:at])]
    assert 12 not in bettered
    found = checkpoints.find(tmp_path / "one" / "checkpoints")
    assert [checkpoint.step for checkpoint in found] == [*bettered, 12]
    assert result.best is not None
    assert result.best.step == bettered[-1]

    hooks = FitHooks(stopping=stop_after(bettered[-1] + 1))
    with pytest.raises(Stopped):
        run(tmp_path / "two", tiny_folder, used, hooks, validation=validation)
    again = run(tmp_path / "two", tiny_folder, used, validation=validation)
    assert again.best is not None
    assert again.best.step == bettered[-1]
    stopped_at = {bettered[-1] + 1}
    steps = {checkpoint.step for checkpoint in checkpoints.find(tmp_path / "two" / "checkpoints")}
    assert steps - stopped_at == {*bettered, 12} - stopped_at


def test_only_the_newest_checkpoints_stay(tiny_folder: Path, tmp_path: Path) -> None:
    run(tmp_path, tiny_folder, recipe(checkpoint_every_n_steps=1, keep_checkpoints=2))
    assert [checkpoint.step for checkpoint in checkpoints.find(tmp_path / "checkpoints")] == [11, 12]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_every_checkpoint_stays_and_is_told_with_its_own_metrics(tiny_folder: Path, tmp_path: Path) -> None:
    used = recipe(checkpoint_every_n_steps=3, keep_checkpoints=None, log_every_n_steps=5, data={"shuffle": False})
    told: list[checkpoints.Checkpoint] = []
    seen: list[float] = []
    hooks = FitHooks(on_checkpoint=told.append, on_step=lambda report, total: seen.append(report.loss))
    result = run(tmp_path, tiny_folder, used, hooks, validation=ExampleTable(rows(9, 1)))
    assert [(checkpoint.step, checkpoint.epoch) for checkpoint in told] == [(3, 0), (6, 0), (9, 1), (12, 1)]
    found = checkpoints.find(tmp_path / "checkpoints")
    assert [checkpoint.folder for checkpoint in found] == [checkpoint.folder for checkpoint in told]
    assert [checkpoint.resumable for checkpoint in found] == [False, False, True, True]
    val = dict(result.curves["val/loss"])
    # the steps since the last point of the curve, which has one every 5 steps and at the end
    windows = {3: slice(0, 3), 6: slice(5, 6), 9: slice(5, 9), 12: slice(10, 12)}
    for checkpoint in found:
        window = seen[windows[checkpoint.step]]
        assert checkpoint.metrics["train_loss"] == pytest.approx(sum(window) / len(window))
        assert checkpoint.metrics["validation_loss"] == val.get(checkpoint.step)
        loss = checkpoint.metrics["validation_loss"]
        assert checkpoint.metrics["perplexity"] == (None if loss is None else pytest.approx(np.exp(loss)))
    assert set(val) == {0, 6, 12}


def test_a_run_that_goes_on_tells_the_checkpoints_that_are_there(tiny_folder: Path, tmp_path: Path) -> None:
    used = recipe(checkpoint_every_n_steps=2, keep_checkpoints=None)
    unbroken = run(tmp_path / "a", tiny_folder, used)
    with pytest.raises(Stopped):
        run(tmp_path / "b", tiny_folder, used, FitHooks(stopping=stop_after(7)))
    told: list[checkpoints.Checkpoint] = []
    resumed = run(tmp_path / "b", tiny_folder, used, FitHooks(on_checkpoint=told.append))
    assert [checkpoint.step for checkpoint in told] == [2, 4, 6, 7, 8, 10, 12]
    assert same(weights(unbroken), weights(resumed))


def test_accumulated_micro_batches_are_one_large_batch(tiny_folder: Path, tmp_path: Path) -> None:
    """The loss is the mean over all tokens under loss, so that 2 x 4 rows and 1 x 8 rows make the same step."""
    order = {"data": {"shuffle": False}, "optimizer": {"optimizer_type": "sgd"}}
    small = run(tmp_path / "a", tiny_folder, recipe(training={"gradient_accumulation_steps": 2}, **_copy(order)))
    order["data"]["batch_size"] = 8  # type: ignore[assignment]
    large = run(tmp_path / "b", tiny_folder, recipe(**_copy(order)))
    assert small.steps == large.steps == 6
    assert [loss for _, loss in small.curves["train/loss"]] == pytest.approx(
        [loss for _, loss in large.curves["train/loss"]], rel=1e-5
    )


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(inner) for name, inner in value.items()}


def test_the_loss_falls_and_every_row_counts(tiny_folder: Path, tmp_path: Path) -> None:
    seen: list[StepReport] = []
    hooks = FitHooks(on_step=lambda report, total: seen.append(report))
    result = run(tmp_path, tiny_folder, recipe(training={"n_epochs": 10}), hooks)
    assert result.train_loss < seen[0].loss - 1.0
    assert sum(report.tokens for report in seen) == 10 * len(rows().input_ids)


def test_gradients_are_clipped(tiny_folder: Path, tmp_path: Path) -> None:
    """With plain SGD a step moves the weights by lr times the clipped norm."""
    used = recipe(
        gradient_clip_norm=0.01,
        lr_schedule="constant",
        training={"n_epochs": 1, "max_steps_per_epoch": 1},
        optimizer={"optimizer_type": "sgd", "lr": 1.0, "weight_decay": 0.0, "num_warmup_steps": 0},
    )
    result = run(tmp_path, tiny_folder, used)
    before = dict(load_model(str(tiny_folder)).state_dict())
    moved = sum(float(((after - before[name]) ** 2).sum()) for name, after in weights(result).items())
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)
    assert result.curves["train/grad_norm"][0][1] > 0.01


def test_validation_at_each_epochs_end_and_its_limit(tiny_folder: Path, tmp_path: Path) -> None:
    result = run(
        tmp_path / "a",
        tiny_folder,
        recipe(training={"max_validation_steps": None}),
        validation=ExampleTable(rows(9, 1)),
    )
    assert [step for step, _ in result.curves["val/loss"]] == [0, 6, 12]
    limited = run(
        tmp_path / "b", tiny_folder, recipe(training={"max_validation_steps": 1}), validation=ExampleTable(rows(9, 1))
    )
    assert limited.curves["val/loss"] != result.curves["val/loss"]
    every = run(tmp_path / "c", tiny_folder, recipe(validate_every_n_steps=5), validation=ExampleTable(rows(9, 1)))
    assert [step for step, _ in every.curves["val/loss"]] == [0, 5, 10, 12]


@pytest.mark.parametrize("precision", ["mixed", "true"])
def test_bf16(tiny_folder: Path, tmp_path: Path, precision: str) -> None:
    used = recipe(training={"dtype": "bf16", "n_epochs": 1})
    trainer = TrainerConfig.model_validate({"accelerator": "cpu", "precision": precision})
    result = run(tmp_path, tiny_folder, used, trainer=trainer)
    held = {"mixed": torch.float32, "true": torch.bfloat16}[precision]
    state = torch.load(result.checkpoint / checkpoints.STATE, weights_only=True)
    moments = {tensor.dtype for slot in state["optimizer"]["state"].values() for tensor in slot.values() if tensor.ndim}
    assert moments == {held}


def test_a_loss_that_is_no_number_names_step_and_rows(tiny_folder: Path, tmp_path: Path) -> None:
    used = recipe(
        gradient_clip_norm=None,
        optimizer={"optimizer_type": "sgd", "lr": 10.0, "num_warmup_steps": 0, "weight_decay": 1e9},
    )
    with pytest.raises(
        TrainingError, match=r"the (loss|gradient) of step \d+ is nan: lower the learning rate .* rows \d+"
    ):
        run(tmp_path, tiny_folder, used)


def test_a_gradient_that_is_no_number_ends_the_run_before_it_ruins_the_weights(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = itertools.count(1)
    real = module.gradient_norm

    def overflow(parameters: Any) -> torch.Tensor:
        return torch.tensor(float("inf")) if next(norms) == 5 else real(parameters)

    monkeypatch.setattr(module, "gradient_norm", overflow)
    used = recipe(checkpoint_every_n_steps=1, data={"shuffle": False})
    with pytest.raises(TrainingError, match=r"the gradient of step 5 is inf: lower .* rows 17, 18, 19, 20"):
        run(tmp_path, tiny_folder, used)
    assert [checkpoint.step for checkpoint in checkpoints.find(tmp_path / "checkpoints")] == [3, 4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can do it")
@pytest.mark.parametrize(
    ("accelerator", "dtype", "sentence"),
    [
        ("cuda", "fp32", "torch finds none here"),
        ("cpu", "fp16", "fp16 needs a GPU"),
        ("auto", "fp16", "fp16"),
    ],
)
def test_what_the_machine_cannot_do_is_refused(
    tiny_folder: Path, tmp_path: Path, accelerator: str, dtype: str, sentence: str
) -> None:
    trainer = TrainerConfig.model_validate({"accelerator": accelerator})
    with pytest.raises(TrainingError, match=sentence):
        run(tmp_path, tiny_folder, recipe(training={"dtype": dtype}), trainer=trainer)


def test_train_on_other_seed_differs(tiny_folder: Path, tmp_path: Path) -> None:
    one, two = (run(tmp_path / str(seed), tiny_folder, recipe(), seed=seed) for seed in (1, 2))
    assert not same(weights(one), weights(two))
