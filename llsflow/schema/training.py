"""Training: the spec's TrainingConfig and its parts, and the recipe around them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from llsflow.schema.base import Bool, Identifier, Int, NonNegativeInt, PositiveInt, Record, Text
from llsflow.schema.variables import check_variables


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
    """true: batch_size counts sequences, each filled with whole rows up to recipe.packed_length tokens; the rows'
    positions and attention stay apart."""
    train_on_input: Bool | None = False
    """Loss on the prompt's tokens too."""


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
    """Memory for time."""

    enable_activation_checkpointing: Bool | None = False
    """Keep only each layer's input and compute the rest again in the backward pass (arXiv:1604.06174)."""
    enable_activation_offloading: Bool | None = False
    """Hold what the backward pass needs in the machine's memory; needs a CUDA GPU."""
    memory_efficient_fsdp_wrap: Bool | None = False
    """Gather embedding and output layer by themselves; with trainer.strategy: fsdp."""
    fsdp_cpu_offload: Bool | None = False
    """Hold the shards in the machine's memory; with trainer.strategy: fsdp on CUDA GPUs."""


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
    """Low-rank adapters (arXiv:2106.09685): the model's weights stay as they are, small matrices beside them learn."""

    type: Literal["LoRA"] = "LoRA"
    lora_attn_modules: list[Text]
    """Attention layers that get an adapter: q_proj, k_proj, v_proj, output_proj, or the model's own names; [] for
    none."""
    apply_lora_to_mlp: Bool
    """Adapters on every linear layer of the feed-forward blocks."""
    apply_lora_to_output: Bool
    """An adapter on the output layer."""
    rank: PositiveInt
    """Rank r of the learned update B·A."""
    alpha: PositiveInt
    """The update is scaled by alpha / rank."""
    use_dora: Bool | None = False
    """Learn each weight's magnitude beside its direction (DoRA, arXiv:2402.09353)."""
    quantize_base: Bool | None = False
    """Hold the weights that stay as they are in 4 bits (NF4, arXiv:2305.14314, section 3); needs bitsandbytes."""

    @model_validator(mode="after")
    def _somewhere(self) -> LoraFinetuningConfig:
        if not (self.lora_attn_modules or self.apply_lora_to_mlp or self.apply_lora_to_output):
            raise ValueError(
                "nothing would learn: name lora_attn_modules, or set apply_lora_to_mlp or apply_lora_to_output"
            )
        return self


class QATFinetuningConfig(Record):
    """Quantisation-aware training; refused, see docs/training.md."""

    type: Literal["QAT"] = "QAT"
    quantizer_name: Text
    group_size: PositiveInt


class DPOLossType(StrEnum):
    """Losses of preference optimisation; their equations stand in llsflow/losses/preference.py."""

    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"
    KTO_PAIR = "kto_pair"


class DPOAlignmentConfig(Record):
    """Direct preference optimisation (arXiv:2305.18290)."""

    beta: Annotated[float, Field(gt=0)]
    """How far from the reference the policy may go: less is further."""
    loss_type: DPOLossType = DPOLossType.SIGMOID
    """sigmoid: DPO (arXiv:2305.18290); hinge: SLiC (arXiv:2309.06657); ipo: IPO (arXiv:2310.12036); kto_pair: KTO on
    pairs (arXiv:2402.01306)."""


AlgorithmConfig = Annotated[LoraFinetuningConfig | QATFinetuningConfig, Field(discriminator="type")]


class Recipe(Record):
    """A training recipe: the spec's training_config, and what the spec leaves open."""

    kind: Literal["sft", "dpo"]
    """sft: supervised fine-tuning; dpo: preference optimisation, on rows of prompt, chosen and rejected."""
    training_config: TrainingConfig
    algorithm_config: AlgorithmConfig | None = None
    """LoRA: adapters; null: full fine-tuning, every weight."""
    alignment_config: DPOAlignmentConfig | None = None
    """The loss of preference optimisation; with kind: dpo, and only there."""
    export: Literal["merged", "adapter"] = "merged"
    """What a training of adapters ends with: a whole model with the adapters in its weights, or the adapters alone."""
    export_checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint is exported, evaluated and registered: the last, or the one with the least validation loss."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """The learning rate after warm-up: held, or brought to 0 at the last step."""
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest 2-norm of the gradient; null: no clipping."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables of the chat template for all training rows, over those of the model: `{enable_thinking: false}`."""
    max_length: PositiveInt | None = None
    """Most tokens in a row; null: the model's context."""
    packed_length: PositiveInt = 2048
    """Most tokens of a sequence when the rows are packed; a longer row has a sequence for itself."""
    overlong: Literal["refuse", "truncate", "drop"] = "refuse"
    """What happens to a row over max_length; the number of rows is always told."""
    group_by_length: Bool = False
    """Rows of like length share a batch: no padding is computed, but batches are less alike to the whole, and
    where length tells what a row is about the model learns worse (quickstart: 0.92 instead of 1.00)."""
    checkpoint_every_n_steps: PositiveInt = 100
    """Optimizer steps between checkpoints; a stopped run goes on from the last one. A validation with the least loss
    so far makes one too."""
    keep_checkpoints: PositiveInt | None = 2
    """How many of the newest checkpoints stay on disk, beside the best by validation; null: all. The newest two keep
    their optimizer, which going on needs, the others their weights alone."""
    checkpoint_dir: Text | None = None
    """Folder that gets a copy of the trained model once the run is recorded; it must be new, empty, or hold the copy
    of the same training."""
    validate_every_n_steps: PositiveInt | None = None
    """Optimizer steps between validations; null: at the end of each epoch."""
    samples_per_validation: NonNegativeInt = 3
    """How many prompts of the validation set the model answers at each validation, to be read; 0: none."""
    sample_max_tokens: PositiveInt = 64
    """Most tokens of such an answer."""
    log_every_n_steps: PositiveInt = 10
    """Optimizer steps between points of the curves."""
    allow_overlap: Bool = False
    """Go on although benchmark or validation rows are also training rows."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_variables(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_variables(value, "chat_template_kwargs")
        return value

    @field_validator("algorithm_config")
    @classmethod
    def _no_quantisation_aware(cls, value: AlgorithmConfig | None) -> AlgorithmConfig | None:
        if isinstance(value, QATFinetuningConfig):
            raise ValueError(
                "QAT is not available: its result runs only in torchao's own format, which no Hugging Face folder "
                "holds; set algorithm_config: null, or LoRA with quantize_base"
            )
        return value

    def checks(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the place and the sentence of every mistake between the recipe's parts."""
        data = self.training_config.data_config
        if data and self.group_by_length and not data.shuffle:
            yield ("group_by_length",), "true needs shuffle: true, as it changes the order of the rows"
        if data and self.group_by_length and data.packed:
            yield ("group_by_length",), "true has no place beside packed: true: batches of whole sequences are alike"
        if data and self.kind == "dpo" and data.train_on_input:
            yield (
                ("training_config", "data_config", "train_on_input"),
                "true is for kind: sft: preferences are between answers",
            )
        if self.kind == "dpo" and self.alignment_config is None:
            yield (
                ("kind",),
                "dpo needs alignment_config, for example {beta: 0.1, loss_type: sigmoid}; recipe=dpo_full has one",
            )
        if self.kind == "sft" and self.alignment_config is not None:
            yield ("alignment_config",), "is for kind: dpo: remove it"
        if data and self.export_checkpoint == "best" and data.validation_dataset_id is None:
            yield (
                ("export_checkpoint",),
                "best is the checkpoint with the least validation loss, and nothing is validated: set "
                "training_config.data_config.validation_dataset_id (with dataset.hold_out=0.05: "
                "'<dataset_id>:held_out'), or export_checkpoint: last",
            )
        if self.export == "adapter" and self.algorithm_config is None:
            yield ("export",), "adapter needs algorithm_config of type LoRA: take merged"


class TrainerConfig(Record):
    """The machine's side of training."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: the best one that this machine has."""
    devices: PositiveInt = 1
    """How many of them train together, each on its own rows (data parallel); an optimizer step then takes batch_size ×
    gradient_accumulation_steps × devices rows. On a CPU they are processes that share its cores."""
    nodes: PositiveInt = 1
    """How many machines: one. A run keeps its work, its stop and its record on the machine that it runs on."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work. ddp (and auto): each holds all weights; fsdp: each holds a share of every
    tensor (arXiv:2304.11277), for models that one device cannot hold."""
    num_workers: NonNegativeInt = 0
    """Processes that make batches ahead; 0: none, which is enough for text."""
    num_threads: PositiveInt | None = None
    """CPU threads of torch; null: torch's own choice."""
    precision: Literal["mixed", "true"] = "mixed"
    """mixed: weights and optimizer in fp32, computation in dtype; true: everything in dtype."""
