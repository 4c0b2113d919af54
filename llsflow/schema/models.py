"""Models: an existing Hugging Face folder or hub id, or one to be built from its config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from llsflow.schema.base import Bool, Identifier, Record, Text


class ModelInit(Record):
    """A model that does not exist yet: random weights, drawn with the experiment's seed."""

    architecture: dict[str, Any]
    """The keys of a Hugging Face `config.json`; `model_type` (llama, qwen3, …) chooses the class."""
    tokenizer: Text = "bytes"
    """`bytes` (one token a byte, plus the chat marks), or a folder that holds a tokenizer."""

    @field_validator("architecture")
    @classmethod
    def _has_model_type(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("model_type"), str):
            raise ValueError("model_type is missing: write for example model_type: llama")
        return value


class ModelConfig(Record):
    """The model that an experiment starts from."""

    model_id: Identifier
    """The name in tables, in MLflow and in benchmark candidates."""
    path: Text | None = None
    """A folder in Hugging Face format, or a hub id (`org/name`) where there is a network."""
    init: ModelInit | None = None
    """Build the model from its config instead of loading one."""
    revision: Text | None = None
    """Commit, tag or branch of a hub id."""
    chat_template: Text | None = None
    """Jinja text, or a file that holds it, to use instead of the model's own template."""
    trust_remote_code: Bool = Field(default=False)
    """Run Python code that comes with the model. Only for a model whose code you have read."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelConfig:
        if (self.path is None) == (self.init is None):
            found = "neither is" if self.path is None else "both are"
            raise ValueError(f"one of path and init must be set ({found}): set model.path=FOLDER")
        if self.revision is not None and self.path is None:
            raise ValueError("revision is for a hub id: remove it, or set model.path=org/name")
        return self


class Model(Record):
    """A model as the API shows it: of conf/model, or a checkpoint of a training job."""

    identifier: str
    """What candidates and training jobs name."""
    id: str
    """The same, where clients of the OpenAI protocol look for it."""
    object: Literal["model"] = "model"
    created: int = 0
    """Unix time in seconds; 0: a model of conf/model."""
    owned_by: str = "llsflow"
    provider_id: str = "llsflow"
    provider_resource_id: str | None = None
    type: Literal["model"] = "model"
    model_type: Literal["llm"] = "llm"
    metadata: dict[str, Any] = {}


class ListModelsResponse(Record):
    """Every model."""

    object: Literal["list"] = "list"
    data: list[Model]
