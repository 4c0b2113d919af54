"""Training: the spec's TrainingConfig and its parts, and the recipe around them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from llsflow.schema.base import Bool, Identifier, Int, NonNegativeInt, PositiveInt, Record, Text


class OptimizerType(StrEnum):
    """The optimizers of the spec."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


class DatasetFormat(StrEnum):
    """Which part of a conversation is learned."""

    INSTRUCT = "instruct"
    DIALOG = "dialog"


class DataConfig(Record):
    """Training data and how it is batched."""

    dataset_id: Identifier
    """The training data set."""
    batch_size: PositiveInt
    """Rows in one micro-batch; an optimizer step takes batch_size × gradient_accumulation_steps rows."""
    shuffle: Bool
    """A new order of the rows each epoch, drawn from the seed; false: the file's order."""
    data_format: DatasetFormat
    """instruct: loss on the last answer only; dialog: loss on every assistant turn."""
    validation_dataset_id: Identifier | None = None
    """Data set of the validation loss; `<dataset_id>:held_out` for the rows that hold_out keeps back."""
    packed: Bool | None = False
    """Several rows in one sequence (not yet)."""
    train_on_input: Bool | None = False
    """Loss on the prompt's tokens too."""

    @field_validator("packed")
    @classmethod
    def _not_packed(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError(
                "packing is not available yet: set packed: false (group_by_length: true saves most of the padding)"
            )
        return value


class OptimizerConfig(Record):
    """The optimizer and its learning rate."""

    optimizer_type: OptimizerType
    """adam: weight decay added to the gradient; adamw: decoupled weight decay; sgd: no momentum."""
    lr: Annotated[float, Field(gt=0, le=10)]
    """Learning rate after warm-up."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Pull towards zero, on matrices only (not on biases and norms)."""
    num_warmup_steps: NonNegativeInt
    """Optimizer steps over which the learning rate rises linearly from 0."""


class EfficiencyConfig(Record):
    """Memory for time; each needs an accelerator and is not available yet."""

    enable_activation_checkpointing: Bool | None = False
    enable_activation_offloading: Bool | None = False
    memory_efficient_fsdp_wrap: Bool | None = False
    fsdp_cpu_offload: Bool | None = False

    @field_validator("*")
    @classmethod
    def _not_yet(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("not available yet: set it to false or leave it out")
        return value


class TrainingConfig(Record):
    """How long, on what and with which optimizer to train."""

    n_epochs: PositiveInt
    """Passes over the data."""
    max_steps_per_epoch: Int = 1
    """Most optimizer steps in an epoch; 0 or less: the whole epoch."""
    gradient_accumulation_steps: PositiveInt = 1
    """Micro-batches summed before an optimizer step; the loss is the mean over all their tokens."""
    max_validation_steps: Int | None = 1
    """Most validation batches each time; null, 0 or less: all."""
    data_config: DataConfig | None = None
    """The data; needed to run."""
    optimizer_config: OptimizerConfig | None = None
    """The optimizer; needed to run."""
    efficiency_config: EfficiencyConfig | None = None
    """Memory savers."""
    dtype: Literal["bf16", "fp16", "fp32"] | None = "bf16"
    """Precision of the computation and of the exported weights; null: fp32. See trainer.precision."""


class LoraFinetuningConfig(Record):
    """Low-rank adapters (arXiv:2106.09685)."""

    type: Literal["LoRA"] = "LoRA"
    lora_attn_modules: list[Text]
    apply_lora_to_mlp: Bool
    apply_lora_to_output: Bool
    rank: PositiveInt
    alpha: PositiveInt
    use_dora: Bool | None = False
    quantize_base: Bool | None = False


class QATFinetuningConfig(Record):
    """Quantisation-aware training."""

    type: Literal["QAT"] = "QAT"
    quantizer_name: Text
    group_size: PositiveInt


class DPOLossType(StrEnum):
    """Losses of preference optimisation."""

    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"
    KTO_PAIR = "kto_pair"


class DPOAlignmentConfig(Record):
    """Direct preference optimisation (arXiv:2305.18290)."""

    beta: Annotated[float, Field(gt=0)]
    """How far from the reference the policy may go: less is further."""
    loss_type: DPOLossType = DPOLossType.SIGMOID


AlgorithmConfig = Annotated[LoraFinetuningConfig | QATFinetuningConfig, Field(discriminator="type")]


class Recipe(Record):
    """A training recipe: the spec's training_config, and what the spec leaves open."""

    kind: Literal["sft"]
    """sft: supervised fine-tuning."""
    training_config: TrainingConfig
    algorithm_config: AlgorithmConfig | None = None
    """null: full fine-tuning, every weight."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """The learning rate after warm-up: held, or brought to 0 at the last step."""
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest 2-norm of the gradient; null: no clipping."""
    max_length: PositiveInt | None = None
    """Most tokens in a row; null: the model's context."""
    overlong: Literal["refuse", "truncate", "drop"] = "refuse"
    """What happens to a row over max_length; the number of rows is always told."""
    group_by_length: Bool = False
    """Rows of like length share a batch: no padding is computed, but batches are less alike to the whole, and
    where length tells what a row is about the model learns worse (quickstart: 0.92 instead of 1.00)."""
    checkpoint_every_n_steps: PositiveInt = 100
    """Optimizer steps between checkpoints; a stopped run goes on from the last one."""
    keep_checkpoints: PositiveInt | None = 2
    """How many of the newest checkpoints stay on disk; null: all. The newest two keep their optimizer, which going on
    needs, the others their weights alone."""
    checkpoint_dir: Text | None = None
    """Folder that gets a copy of the trained model once the run is recorded; it must be new, empty, or hold the copy
    of the same training."""
    validate_every_n_steps: PositiveInt | None = None
    """Optimizer steps between validations; null: at the end of each epoch."""
    log_every_n_steps: PositiveInt = 10
    """Optimizer steps between points of the curves."""
    allow_overlap: Bool = False
    """Go on although benchmark or validation rows are also training rows."""

    @field_validator("algorithm_config")
    @classmethod
    def _full_only(cls, value: AlgorithmConfig | None) -> AlgorithmConfig | None:
        if value is not None:
            raise ValueError(f"{value.type} is not available yet: set algorithm_config: null (full fine-tuning)")
        return value

    @model_validator(mode="after")
    def _grouping_shuffles(self) -> Recipe:
        data = self.training_config.data_config
        if self.group_by_length and data and not data.shuffle:
            raise ValueError("group_by_length: true needs shuffle: true, as it changes the order of the rows")
        return self


class TrainerConfig(Record):
    """The machine's side of training."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: the best one that this machine has."""
    devices: PositiveInt = 1
    """How many of them."""
    num_threads: PositiveInt | None = None
    """CPU threads of torch; null: torch's own choice."""
    precision: Literal["mixed", "true"] = "mixed"
    """mixed: weights and optimizer in fp32, computation in dtype; true: everything in dtype."""

    @field_validator("devices")
    @classmethod
    def _one_device(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"{value} devices are not available yet: set devices: 1")
        return value
