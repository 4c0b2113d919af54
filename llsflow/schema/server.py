"""The server: where it listens, who may come in, what it may read, and how its jobs run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llsflow.schema.base import Bool, Identifier, NonNegativeInt, PositiveInt, Record, Text

Port = Annotated[NonNegativeInt, Field(le=65535)]


class FetchConfig(Record):
    """Outgoing fetches: data sets by https."""

    max_bytes: PositiveInt = 2_000_000_000
    """Largest answer that is taken."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """For the whole answer."""
    allow_hosts: list[Text] = []
    """Host names that may also be at private or loopback addresses, and be reached by http."""


class JobsConfig(Record):
    """How jobs run."""

    at_once: PositiveInt = 2
    """Jobs that run at the same time; the others wait."""
    after_crash: Literal["resume", "fail"] = "resume"
    """What becomes of a job whose process was killed: it goes on from its last checkpoint or row, or it says failed."""
    checkpoint_every_n_steps: PositiveInt = 100
    """Optimizer steps between checkpoints of training jobs."""
    work_pool: Identifier = "llsflow"
    """Prefect work pool that runs them; the server starts a process worker for its own."""


class AgentsConfig(Record):
    """How turns with agents are worked on."""

    documents_characters: PositiveInt = 32_000
    """Documents of a session up to so many characters go to the model whole; of more, the passages that matter."""
    passages: PositiveInt = 8
    """At most so many passages at a time."""
    passage_characters: PositiveInt = 1_500
    """Longest passage; at most documents_characters."""
    embedding_model: Identifier | None = None
    """Model of model_type rerank that finds passages by the likeness of embeddings; null: by shared words, BM25."""
    traces: Bool = True
    """Whether each turn becomes a trace in MLflow."""

    @model_validator(mode="after")
    def _a_passage_fits(self) -> AgentsConfig:
        if self.passage_characters > self.documents_characters:
            found = f"passage_characters is {self.passage_characters:,}"
            raise ValueError(f"{found}, allowed: up to documents_characters, which is {self.documents_characters:,}")
        return self


class EngineConfig(Record):
    """The inference engine of the server."""

    port: Port = 0
    """0: any that is free."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    max_models: PositiveInt = 2
    """Models in memory at once, a base with its adapters counting once; the one not used for longest leaves first."""
    batch_size: PositiveInt = 32
    """Most requests that are generated together."""
    idle_seconds: Annotated[float, Field(ge=0)] = 900.0
    """A model that nobody asks for so long leaves the memory; 0: it stays until another needs its place."""


class ServerConfig(Record):
    """`llsflow serve`."""

    host: Text = "127.0.0.1"
    """Address to listen on; any but loopback needs a key."""
    port: Port = 8321
    """0: any that is free."""
    api_keys_file: Text | None = None
    """File with the sha256 (hex) of one key a line, then its name; LLSFLOW_API_KEY is a key as well."""
    requests_per_minute: NonNegativeInt = 0
    """Most requests of a key (or, without keys, of an address) in a minute; 0: no limit."""
    max_body_bytes: PositiveInt = 256_000_000
    """Largest request body."""
    max_page_rows: PositiveInt = 10_000
    """Most rows in one page."""
    data_roots: list[Text] = []
    """Folders whose files may be registered as data sets."""
    default_model: Identifier | None = None
    """Model of training jobs that name none."""
    store: Text | None = None
    """SQLAlchemy URL of the store; null: LLSFLOW_STORE_URL, or SQLite under LLSFLOW_HOME."""
    mlflow_port: Port = 5000
    """Of the MLflow page, where it is free."""
    mlflow_page: Bool = True
    """Whether to start it."""
    fetch: FetchConfig = FetchConfig()
    jobs: JobsConfig = JobsConfig()
    engine: EngineConfig = EngineConfig()
    agents: AgentsConfig = AgentsConfig()
