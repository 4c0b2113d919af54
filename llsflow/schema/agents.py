"""Agents: their configuration, sessions, turns and steps, and the events of a turn under way."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from llsflow.schema.base import Bool, Identifier, PositiveInt, Record, Text
from llsflow.schema.inference import (
    URL,
    CompletionMessage,
    ContentDelta,
    InterleavedContent,
    ResponseFormat,
    ToolCall,
    ToolChoice,
    ToolConfig,
    ToolDef,
    ToolPromptFormat,
    ToolResponse,
    ToolResponseMessage,
    UserMessage,
)
from llsflow.schema.sampling import SamplingParams


class AgentToolGroupWithArgs(Record):
    """A group of tools, with arguments that every call of them takes."""

    name: Text
    args: dict[str, Any]


AgentToolGroup = Text | AgentToolGroupWithArgs


class AgentConfig(Record):
    """An agent: a model, its instructions and its tools."""

    model: Identifier
    instructions: str
    """The system message of every turn."""
    name: Text | None = None
    sampling_params: SamplingParams | None = None
    input_shields: list[Text] | None = None
    """Look at what comes in."""
    output_shields: list[Text] | None = None
    """Look at what goes out."""
    toolgroups: list[AgentToolGroup] | None = None
    """Tools that the server runs."""
    client_tools: list[ToolDef] | None = None
    """Tools that the caller runs: a turn that calls one waits for its answer."""
    tool_choice: Annotated[ToolChoice | None, Field(json_schema_extra={"deprecated": True})] = None
    """Use tool_config."""
    tool_prompt_format: Annotated[ToolPromptFormat | None, Field(json_schema_extra={"deprecated": True})] = None
    """Use tool_config."""
    tool_config: ToolConfig | None = None
    max_infer_iters: PositiveInt | None = 10
    """Most generations in a turn, across its resumptions."""
    enable_session_persistence: Bool | None = False
    response_format: ResponseFormat | None = None


class Agent(Record):
    """An agent, made."""

    agent_id: str
    agent_config: AgentConfig
    created_at: datetime


class CreateAgentRequest(Record):
    """What `POST /v1alpha/agents` takes."""

    agent_config: AgentConfig


class AgentCreateResponse(Record):
    """The new agent."""

    agent_id: str


class CreateAgentSessionRequest(Record):
    """What `POST /v1alpha/agents/{agent_id}/session` takes."""

    session_name: Text


class AgentSessionCreateResponse(Record):
    """The new session."""

    session_id: str


class Document(Record):
    """A document that goes with a turn."""

    content: InterleavedContent | URL
    mime_type: Text


class Attachment(Record):
    """A file that a turn made."""

    content: InterleavedContent | URL
    mime_type: str


class ViolationLevel(StrEnum):
    """How bad it is; only an error stops the turn."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class SafetyViolation(Record):
    """What a shield found."""

    violation_level: ViolationLevel
    user_message: str | None = None
    """What the user is told."""
    metadata: dict[str, Any] = {}


class StepType(StrEnum):
    """What a step does."""

    INFERENCE = "inference"
    TOOL_EXECUTION = "tool_execution"
    SHIELD_CALL = "shield_call"
    MEMORY_RETRIEVAL = "memory_retrieval"


class _Step(Record):
    turn_id: str
    step_id: str
    started_at: datetime | None = None
    completed_at: datetime | None = None


class InferenceStep(_Step):
    """A generation."""

    step_type: Literal["inference"] = "inference"
    model_response: CompletionMessage
    usage: dict[str, int] | None = None
    """Tokens read and written: prompt_tokens, completion_tokens, total_tokens. Not in the specification."""
    reasoning_content: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """What the model thought before it answered, where its server sends that apart. Not in the specification."""


class ToolExecutionStep(_Step):
    """Tools, run."""

    step_type: Literal["tool_execution"] = "tool_execution"
    tool_calls: list[ToolCall]
    tool_responses: list[ToolResponse]


class ShieldCallStep(_Step):
    """A shield, asked."""

    step_type: Literal["shield_call"] = "shield_call"
    violation: SafetyViolation | None
    """null: nothing was found."""


class MemoryRetrievalStep(_Step):
    """Context, looked up."""

    step_type: Literal["memory_retrieval"] = "memory_retrieval"
    vector_db_ids: str
    inserted_context: InterleavedContent


Step = Annotated[
    InferenceStep | ToolExecutionStep | ShieldCallStep | MemoryRetrievalStep, Field(discriminator="step_type")
]
InputMessage = UserMessage | ToolResponseMessage


class Turn(Record):
    """What was said and done from the user's messages to the answer."""

    turn_id: str
    session_id: str
    input_messages: list[InputMessage]
    steps: list[Step]
    output_message: CompletionMessage
    output_attachments: list[Attachment] | None = None
    started_at: datetime
    completed_at: datetime | None = None
    error: str | None = None
    """Why it failed, in words. Not in the specification."""


class Session(Record):
    """A conversation with an agent."""

    session_id: str
    session_name: str
    turns: list[Turn]
    started_at: datetime


class AgentStepResponse(Record):
    """One step of a turn."""

    step: Step


class CreateAgentTurnRequest(Record):
    """What `POST …/session/{session_id}/turn` takes."""

    messages: list[InputMessage]
    stream: Bool | None = False
    """true: the events of the turn as they come."""
    documents: list[Document] | None = None
    toolgroups: list[AgentToolGroup] | None = None
    tool_config: ToolConfig | None = None


class ResumeAgentTurnRequest(Record):
    """What `POST …/turn/{turn_id}/resume` takes: the answers of the tools that the caller ran."""

    tool_responses: list[ToolResponse]
    stream: Bool | None = False


class AgentTurnResponseTurnStartPayload(Record):
    """A turn begins."""

    event_type: Literal["turn_start"] = "turn_start"
    turn_id: str


class AgentTurnResponseStepStartPayload(Record):
    """A step begins."""

    event_type: Literal["step_start"] = "step_start"
    step_type: StepType
    step_id: str
    metadata: dict[str, Any] | None = None


class AgentTurnResponseStepProgressPayload(Record):
    """More of a step."""

    event_type: Literal["step_progress"] = "step_progress"
    step_type: StepType
    step_id: str
    delta: ContentDelta


class AgentTurnResponseStepCompletePayload(Record):
    """A step is done."""

    event_type: Literal["step_complete"] = "step_complete"
    step_type: StepType
    step_id: str
    step_details: Step


class AgentTurnResponseTurnAwaitingInputPayload(Record):
    """The turn waits for the answers of the caller's tools: the last event until it is resumed."""

    event_type: Literal["turn_awaiting_input"] = "turn_awaiting_input"
    turn: Turn


class AgentTurnResponseTurnCompletePayload(Record):
    """The turn is done: the last event."""

    event_type: Literal["turn_complete"] = "turn_complete"
    turn: Turn


AgentTurnResponseEventPayload = Annotated[
    AgentTurnResponseStepStartPayload
    | AgentTurnResponseStepProgressPayload
    | AgentTurnResponseStepCompletePayload
    | AgentTurnResponseTurnStartPayload
    | AgentTurnResponseTurnCompletePayload
    | AgentTurnResponseTurnAwaitingInputPayload,
    Field(discriminator="event_type"),
]


class AgentTurnResponseEvent(Record):
    """What happened."""

    payload: AgentTurnResponseEventPayload


class AgentTurnResponseStreamChunk(Record):
    """One event of a turn under way."""

    event: AgentTurnResponseEvent
