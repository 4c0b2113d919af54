"""Data sets: what they are for and where their rows come from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llsflow.schema.base import Identifier, NonNegativeInt, Record, Text

HELD_OUT = ":held_out"
"""`<dataset_id>:held_out` names the rows that `hold_out` keeps away from training."""


class DatasetPurpose(StrEnum):
    """What a data set is for; each purpose takes the columns it names."""

    POST_TRAINING_MESSAGES = "post-training/messages"
    EVAL_QUESTION_ANSWER = "eval/question-answer"
    EVAL_MESSAGES_ANSWER = "eval/messages-answer"
    EVAL_RERANK = "eval/rerank"
    """Not of the specification."""


class URIDataSource(Record):
    """Rows in a file."""

    type: Literal["uri"] = "uri"
    uri: Text


class RowsDataSource(Record):
    """Rows given inline."""

    type: Literal["rows"] = "rows"
    rows: list[dict[str, Any]]


class DatasetConfig(Record):
    """A data set of the catalogue: `conf/dataset/<dataset_id>.yaml`, or one given on the command line."""

    dataset_id: Identifier
    """The name that recipes and benchmarks use."""
    purpose: DatasetPurpose = DatasetPurpose.POST_TRAINING_MESSAGES
    """post-training/messages: `messages`, `conversations`, `prompt`+`completion`, `question`+`answer`,
    `instruction`+`output`, `text` or `chosen`+`rejected` rows;
    eval/question-answer: `question`+`answer`; eval/messages-answer: `messages`+`answer`;
    both also take `expected_answer` with `chat_completion_input` or `input_query`, as older data sets have them;
    eval/rerank: `query`, `items` (a list of texts) and `relevance` (a number for each item; 0: it is not relevant)."""
    uri: Text | None = None
    """A .jsonl, .json, .csv or .parquet file (each optionally .gz): a path from where the command runs,
    or `conf://…` for one beside the configuration; or `store://<dataset_id>?rows=<n>&digest=<sha256>` for the first
    rows of a registered data set (all of them, and whatever they are, without rows and digest)."""
    rows: list[dict[str, Any]] | None = None
    """The rows themselves, instead of `uri`."""
    columns: dict[str, Text] = {}
    """Names that rows are read by, and the names that the file has for them: `{prompt: question_text}`."""
    hold_out: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the rows kept away from training, chosen by their content; `<dataset_id>:held_out` names them."""
    metadata: dict[str, Any] = {}
    """Anything worth keeping beside the data: licence, source, version."""

    @model_validator(mode="after")
    def _one_source(self) -> DatasetConfig:
        if (self.uri is None) == (self.rows is None):
            found = "neither is" if self.uri is None else "both are"
            raise ValueError(f"one of uri and rows must be set ({found}): set dataset.uri=FILE")
        return self


DataSource = Annotated[URIDataSource | RowsDataSource, Field(discriminator="type")]


class Dataset(Record):
    """A data set as the API shows it."""

    identifier: str
    provider_id: str
    """llsflow: registered; conf: a file of conf/dataset, which cannot be appended to or unregistered."""
    provider_resource_id: str | None = None
    type: Literal["dataset"] = "dataset"
    purpose: DatasetPurpose
    source: DataSource
    """As registered; of rows given inline, the first 100 (none in a list): read the others from iterrows."""
    metadata: dict[str, Any] = {}
    num_rows: NonNegativeInt | None = None
    """Rows registered and appended; null: a file of conf/dataset that was not read yet, or cannot be."""
    digest: str | None = None
    """sha256 (hex) of all rows, in their order; every append changes it. null as num_rows."""


class RegisterDatasetRequest(Record):
    """What `POST /v1beta/datasets` takes."""

    purpose: DatasetPurpose
    source: DataSource
    dataset_id: Identifier | None = None
    """null: a new name, dataset-<uuid>."""
    metadata: dict[str, Any] | None = None


class AppendRowsRequest(Record):
    """What `POST /v1beta/datasetio/append-rows/{dataset_id}` takes."""

    rows: list[dict[str, Any]]


class ListDatasetsResponse(Record):
    """Every data set."""

    data: list[Dataset]
