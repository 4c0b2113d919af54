"""What is wrong with an agent, a turn or the answers to its calls: everything at once, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llsflow.agents import history
from llsflow.agents.content import has_images
from llsflow.agents.prompts import DEFINITIONS
from llsflow.errors import Mistake
from llsflow.models.catalogue import writes_calls
from llsflow.schema.agents import AgentConfig, CreateAgentTurnRequest, ToolExecutionStep
from llsflow.schema.inference import (
    GrammarResponseFormat,
    ResponseFormat,
    SystemMessageBehavior,
    ToolChoice,
    ToolConfig,
    ToolPromptFormat,
    ToolResponse,
    UserMessage,
)
from llsflow.schema.models import ModelConfig
from llsflow.store import StoredTurn


def tool_config_of(config: AgentConfig) -> ToolConfig:
    """Return how an agent's tools are offered: by tool_config, else by the two older fields."""
    if config.tool_config:
        return config.tool_config
    return ToolConfig(tool_choice=config.tool_choice or ToolChoice.AUTO, tool_prompt_format=config.tool_prompt_format)


def agent_mistakes(config: AgentConfig, model: ModelConfig, names: Sequence[str]) -> Iterator[Mistake]:
    """Yield what of an agent cannot be done; `names` are those of its tools."""
    if model.model_type != "llm":
        yield Mistake("model", f"{config.model!r} ranks and writes no text: an agent takes a model of model_type llm")
    own = [tool.name for tool in config.client_tools or ()]
    for name in sorted({name for name in own if own.count(name) > 1}):
        yield Mistake("agent_config.client_tools", f"{name!r} is there twice: name each tool once")
    for name in ("tool_choice", "tool_prompt_format") if config.tool_config else ():
        older, newer = getattr(config, name), getattr(config.tool_config, name)
        if older is not None and older != newer:
            yield Mistake(f"agent_config.{name}", f"is {older}, and tool_config says {newer}: leave it out")
    yield from _choice_mistakes("agent_config.tool_config.tool_choice", tool_config_of(config), names)
    form = form_of(tool_config_of(config), model, config)
    if config.response_format and form and names:
        yield from _format_mistakes(config.response_format, form)


def form_of(config: ToolConfig, model: ModelConfig, agent: AgentConfig) -> ToolPromptFormat | None:
    """Return how calls are written in a model's text; None: the endpoint or the model's chat template has its own way.

    Where the instructions replace the definitions of the tools, a model of this machine may know its tools from its
    training. An endpoint's gets them by the protocol: else it would know of none. Answers that keep to a format leave
    no room for calls in a format of the model's own.
    """
    replaces = config.system_message_behavior is SystemMessageBehavior.REPLACE
    if model.endpoint and replaces and DEFINITIONS not in agent.instructions:
        return None
    if config.tool_prompt_format or model.endpoint:
        return config.tool_prompt_format
    return ToolPromptFormat.JSON if agent.response_format or replaces or not writes_calls(model) else None


def _format_mistakes(wanted: ResponseFormat, form: ToolPromptFormat) -> Iterator[Mistake]:
    """Yield why an answer's format cannot stand beside calls that the model writes as text."""
    if isinstance(wanted, GrammarResponseFormat):
        message = "a grammar leaves no room for the calls that this model writes as text: take json_schema, or no tools"
        yield Mistake("agent_config.response_format", message)
    elif form is not ToolPromptFormat.JSON:
        message = f"is {form}, and an answer that keeps to a schema leaves room for calls in json only"
        yield Mistake("agent_config.tool_config.tool_prompt_format", message)


def _choice_mistakes(where: str, config: ToolConfig, names: Sequence[str]) -> Iterator[Mistake]:
    choice = config.tool_choice
    if choice in (None, ToolChoice.AUTO, ToolChoice.NONE):
        return
    if choice == ToolChoice.REQUIRED and not names:
        yield Mistake(where, "is required, and the agent has no tools: leave it out")
    elif choice != ToolChoice.REQUIRED and choice not in names:
        known = ", ".join(["auto", "required", "none", *names])
        yield Mistake(where, f"found {choice!r}, allowed: {known}")


def request_mistakes(
    request: CreateAgentTurnRequest, config: AgentConfig, model: ModelConfig, names: Sequence[str]
) -> Iterator[Mistake]:
    """Yield what of a turn cannot be done; `names` are those of its tools."""
    if not request.messages:
        yield Mistake("messages", "is empty: say something")
    if request.documents and not any(isinstance(message, UserMessage) for message in request.messages):
        yield Mistake("documents", "go with a user message: send one")
    for number, message in enumerate(request.messages):
        if isinstance(message, UserMessage) and not model.endpoint and has_images(message.content):
            yield Mistake(f"messages.{number}.content", f"the model {config.model!r} sees no images: send text")
    if request.tool_config:
        yield from _choice_mistakes("tool_config.tool_choice", request.tool_config, names)


def may_have_been_parsed(turn: StoredTurn) -> bool:
    """Return whether a turn ended in text that the caller may have read calls from, as ReAct agents do."""
    said = turn.output_message or {}
    return turn.status == "completed" and bool(said.get("content")) and not said.get("tool_calls")


def response_mistakes(turn: StoredTurn, responses: Sequence[ToolResponse]) -> Iterator[Mistake]:
    """Yield what of the answers of the caller's tools is not what the turn waits for."""
    waiting = {call.call_id: call for call in history.waiting(history.steps_of(turn))}
    given = [response.call_id for response in responses]
    answered = {
        response.call_id
        for step in history.steps_of(turn)
        if isinstance(step, ToolExecutionStep)
        for response in step.tool_responses
    }
    for number, response in enumerate(responses):
        where = f"tool_responses.{number}.call_id"
        if response.call_id in answered:
            yield Mistake(where, f"{response.call_id!r} was answered already")
        elif response.call_id not in waiting and turn.status == "awaiting_input":
            known = ", ".join(waiting)
            yield Mistake(where, f"{response.call_id!r} is no call of this turn; it waits for {known}")
        elif given.index(response.call_id) != number:
            yield Mistake(where, f"{response.call_id!r} is answered twice: answer each call once")
        elif response.call_id in waiting and response.tool_name != waiting[response.call_id].tool_name:
            called = waiting[response.call_id].tool_name
            yield Mistake(f"tool_responses.{number}.tool_name", f"found {response.tool_name!r}, allowed: {called!r}")
    if not responses:
        yield Mistake("tool_responses", "is empty: answer the calls")
    missing = [call_id for call_id in waiting if call_id not in given]
    if missing:
        yield Mistake("tool_responses", f"{', '.join(missing)} is not answered: answer every call at once")
