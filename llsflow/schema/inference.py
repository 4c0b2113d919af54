"""What goes to a model and comes from it: content, messages, tools and their calls."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llsflow.schema.base import Record, Text


class URL(Record):
    """Where something lies."""

    uri: Text


class _URLOrData(Record):
    """Bytes, or where they lie; the leading underscore is the specification's."""

    url: URL | None = None
    data: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})] | None = None
    """The bytes in base64."""

    @model_validator(mode="after")
    def _one_of_them(self) -> _URLOrData:
        if (self.url is None) == (self.data is None):
            raise ValueError(f"one of url and data must be set ({'neither is' if self.url is None else 'both are'})")
        return self


class ImageContentItem(Record):
    """An image within a message."""

    type: Literal["image"] = "image"
    image: _URLOrData


class TextContentItem(Record):
    """A text within a message."""

    type: Literal["text"] = "text"
    text: str


ContentItem = Annotated[ImageContentItem | TextContentItem, Field(discriminator="type")]
InterleavedContent = str | ContentItem | list[ContentItem]
"""A text, an item, or items in their order."""


class BuiltinTool(StrEnum):
    """Tools that models know by name."""

    BRAVE_SEARCH = "brave_search"
    WOLFRAM_ALPHA = "wolfram_alpha"
    PHOTOGEN = "photogen"
    CODE_INTERPRETER = "code_interpreter"


class StopReason(StrEnum):
    """Why a generation ended."""

    END_OF_TURN = "end_of_turn"
    END_OF_MESSAGE = "end_of_message"
    """A tool is called; the turn goes on with its answer."""
    OUT_OF_TOKENS = "out_of_tokens"


class ToolCall(Record):
    """A model's wish to have a tool run."""

    call_id: str
    tool_name: BuiltinTool | str
    arguments: str
    """JSON of an object."""


class ToolResponse(Record):
    """What a tool answered."""

    call_id: str
    tool_name: BuiltinTool | str
    content: InterleavedContent
    metadata: dict[str, Any] | None = None


class UserMessage(Record):
    """What the user says."""

    role: Literal["user"] = "user"
    content: InterleavedContent
    context: InterleavedContent | None = None
    """Goes to the model with this message, and stays out of later turns."""


class ToolResponseMessage(Record):
    """What a tool answered, as a message."""

    role: Literal["tool"] = "tool"
    call_id: str
    content: InterleavedContent


class CompletionMessage(Record):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: InterleavedContent
    stop_reason: StopReason
    tool_calls: list[ToolCall] | None = None


class ToolChoice(StrEnum):
    """Whether tools are called."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"


class ToolPromptFormat(StrEnum):
    """How tool calls are written in the prompt."""

    JSON = "json"
    FUNCTION_TAG = "function_tag"
    PYTHON_LIST = "python_list"


class SystemMessageBehavior(StrEnum):
    """What the given system message does to the default one."""

    APPEND = "append"
    REPLACE = "replace"


class ToolConfig(Record):
    """How tools are offered and called."""

    tool_choice: ToolChoice | str | None = ToolChoice.AUTO
    """auto, required, none, or the name of the tool that must be called."""
    tool_prompt_format: ToolPromptFormat | None = None
    """null: as the model was trained."""
    system_message_behavior: SystemMessageBehavior | None = SystemMessageBehavior.APPEND


class ToolDef(Record):
    """A tool: its name, what it does, and what it takes."""

    toolgroup_id: str | None = None
    name: Text
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON Schema of the arguments."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema of the answer."""
    metadata: dict[str, Any] | None = None


class JsonSchemaResponseFormat(Record):
    """The answer is JSON that this schema takes."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any]


class GrammarResponseFormat(Record):
    """The answer is a sentence of this grammar."""

    type: Literal["grammar"] = "grammar"
    bnf: dict[str, Any]
    """Rules by name, in the notation of GBNF (llama.cpp, grammars/README.md); `root` is the answer."""


ResponseFormat = Annotated[JsonSchemaResponseFormat | GrammarResponseFormat, Field(discriminator="type")]


class TextDelta(Record):
    """More of a text."""

    type: Literal["text"] = "text"
    text: str


class ImageDelta(Record):
    """More of an image."""

    type: Literal["image"] = "image"
    image: str
    """Bytes in base64."""


class ToolCallParseStatus(StrEnum):
    """How far a tool call has been read."""

    STARTED = "started"
    IN_PROGRESS = "in_progress"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


class ToolCallDelta(Record):
    """More of a tool call: its text while it comes, the call once it is whole."""

    type: Literal["tool_call"] = "tool_call"
    tool_call: str | ToolCall
    parse_status: ToolCallParseStatus


ContentDelta = Annotated[TextDelta | ImageDelta | ToolCallDelta, Field(discriminator="type")]
