"""Models: an existing Hugging Face folder or hub id, one to be built from its config, or an endpoint's."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from llsflow.schema.base import Bool, Identifier, NonNegativeInt, PositiveInt, Record, Text
from llsflow.schema.services import BaseUrl, Variable
from llsflow.schema.variables import check_variables

TEMPLATE_DATE = datetime.date(2025, 1, 1)
"""What a chat template that writes today's date writes in training and evaluation: the same tokens on any day."""


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


ToolImages = Literal["described", "user_message", "tool_message"]


class Endpoint(Record):
    """An OpenAI-compatible server that answers for a model: vLLM, Ollama, a hosted service."""

    base_url: BaseUrl
    """Address as clients of the protocol write it, for example http://127.0.0.1:8000/v1."""
    model: Text | None = None
    """Its name there; null: the model_id."""
    api_key_env: Variable | None = None
    """Name of the environment variable that holds the key; the key itself stands in no file."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """For a whole answer, each try; of one that is streamed: for the next part."""
    retries: NonNegativeInt = 5
    """Further tries of a request that was not answered, or with 429 or 5xx, later each time."""
    at_once: PositiveInt = 16
    """Most requests under way at the same time."""
    tool_images: ToolImages = "described"
    """How an agent's model gets the images that its tools return: described: a line says that there is one, for models
    that see none; user_message: in a user's message behind the answers, as OpenAI takes them; tool_message: within the
    tool's own answer, as vLLM does."""


class ModelConfig(Record):
    """The model that an experiment starts from."""

    model_id: Identifier
    """The name in tables, in MLflow and in benchmark candidates."""
    model_type: Literal["llm", "rerank"] = "llm"
    """llm: writes text; rerank: says how relevant texts are to a query, as cross-encoders and embedding models do."""
    path: Text | None = None
    """A folder in Hugging Face format, or a hub id (`org/name`) where there is a network."""
    init: ModelInit | None = None
    """Build the model from its config instead of loading one."""
    endpoint: Endpoint | None = None
    """Ask a server instead: for evaluations, judges and agents; nothing is trained there."""
    builtin: Literal["bm25"] | None = None
    """A way to rank that needs no weights."""
    revision: Text | None = None
    """Commit, tag or branch of a hub id."""
    chat_template: Text | None = None
    """Jinja text, or a file that holds it, to use instead of the model's own template."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables of the chat template for all conversations, for example `{enable_thinking: false}`; a row's own
    `chat_template_kwargs` come first."""
    template_date: datetime.date | None = None
    """The day that a chat template writes where it writes today's; null: 2025-01-01 in training and evaluation, so
    that the same plan has the same tokens on any day, and today in the engine."""
    trust_remote_code: Bool = Field(default=False)
    """Run Python code that comes with the model. Only for a model whose code you have read."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_variables(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_variables(value, "chat_template_kwargs")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> ModelConfig:
        names = ("path", "init", "endpoint", "builtin")
        origins = [name for name in names if getattr(self, name) is not None]
        if len(origins) != 1:
            found = " and ".join(origins) + " are" if origins else "none is"
            raise ValueError(f"one of path, init, endpoint and builtin must be set ({found}): set model.path=FOLDER")
        if self.revision is not None and self.path is None:
            raise ValueError("revision is for a hub id: remove it, or set model.path=org/name")
        if self.endpoint and self.chat_template is not None:
            raise ValueError("chat_template: the endpoint writes the prompt by its own: remove it")
        for name in ("chat_template_kwargs", "template_date"):
            if getattr(self, name) and (self.endpoint or self.model_type == "rerank"):
                what = "the endpoint writes the prompt" if self.endpoint else "a reranker has no chat template"
                raise ValueError(f"{name}: {what}: remove it")
        if self.endpoint and self.trust_remote_code:
            raise ValueError("trust_remote_code: nothing of an endpoint's model is run here: remove it")
        return self

    @model_validator(mode="after")
    def _as_its_type_has_it(self) -> ModelConfig:
        if self.model_type == "llm" and self.builtin:
            raise ValueError(f"builtin: {self.builtin} ranks and writes no text: set model_type: rerank")
        if self.model_type == "rerank" and self.init:
            raise ValueError("init: only models that write text are built here: set path to a reranker's folder")
        if self.model_type == "rerank" and self.chat_template is not None:
            raise ValueError("chat_template: a reranker holds no conversation: remove it")
        if self.builtin and self.trust_remote_code:
            raise ValueError(f"trust_remote_code: {self.builtin} is of llsflow itself: remove it")
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
    model_type: Literal["llm", "rerank"] = "llm"
    metadata: dict[str, Any] = {}


class ListModelsResponse(Record):
    """Every model."""

    object: Literal["list"] = "list"
    data: list[Model]
