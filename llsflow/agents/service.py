"""What the API asks of agents: make, look, remove, and have turns with them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llsflow.agents import history
from llsflow.agents.content import has_images
from llsflow.agents.documents import read_documents
from llsflow.agents.generating import Channels
from llsflow.agents.turn import Payload, Work, most_generations, run
from llsflow.agents.views import turn_view
from llsflow.errors import ConfigError, ConflictError, Mistake, NotFoundError
from llsflow.models.remote import RemoteModel
from llsflow.schema.agents import (
    AgentConfig,
    CreateAgentTurnRequest,
    ResumeAgentTurnRequest,
    ToolExecutionStep,
)
from llsflow.schema.inference import ToolChoice, ToolConfig, ToolPromptFormat, ToolResponse, UserMessage
from llsflow.schema.models import ModelConfig
from llsflow.schema.server import FetchConfig
from llsflow.store import Store, StoredAgent, StoredSession, StoredTurn
from llsflow.store.sessions import Sessions

AT_ONCE = 64
"""Generations that the inference engine is asked for at the same time."""


@dataclass
class AgentsService:
    """Agents, as the API sees them. What is not async may be called from many threads."""

    store: Store
    model: Callable[[str], ModelConfig]
    """Returns the model of a name; NotFoundError."""
    engine_url: Callable[[], str]
    """Returns where the inference engine answers; UnavailableError."""
    fetching: FetchConfig = field(default_factory=FetchConfig)
    """What documents by URL may be fetched."""
    channels: Channels = field(default_factory=Channels)

    def create(self, config: AgentConfig) -> str:
        """Make an agent, and return its id.

        Raises:
            ConfigError: everything in the configuration that cannot be done, at once.
            NotFoundError: there is no such model.
        """
        model = self.model(config.model)
        if mistakes := list(_mistakes(config, model)):
            raise ConfigError(mistakes)
        agent_id = str(uuid.uuid4())
        self.store.agents.create(StoredAgent(agent_id, config.model_dump(mode="json"), datetime.now(UTC)))
        return agent_id

    def agent(self, agent_id: str) -> StoredAgent:
        """Return an agent.

        Raises:
            NotFoundError: there is none.
        """
        agent = self.store.agents.get(agent_id)
        if agent is None:
            raise NotFoundError(f"no agent {agent_id!r}")
        return agent

    def delete(self, agent_id: str) -> None:
        """Remove an agent with its sessions.

        Raises:
            NotFoundError: there is none.
        """
        self.agent(agent_id)
        for sessions in self._places():
            sessions.delete_of(agent_id)
        self.store.agents.delete(agent_id)

    def begin_session(self, agent_id: str, name: str) -> str:
        """Begin a session with an agent, and return its id.

        Raises:
            NotFoundError: there is no such agent.
        """
        config = self.config(agent_id)
        sessions = self.store.sessions if config.enable_session_persistence else self.store.unkept_sessions
        session_id = str(uuid.uuid4())
        sessions.create(StoredSession(session_id, agent_id, name, datetime.now(UTC)))
        return session_id

    def sessions(self, agent_id: str, start: int, limit: int | None) -> tuple[Sequence[StoredSession], bool]:
        """Return a page of an agent's sessions, those that are kept first, and whether there are more.

        Raises:
            NotFoundError: there is no such agent.
        """
        self.agent(agent_id)
        end = None if limit is None else start + limit
        every: list[StoredSession] = []
        for place in self._places():
            every += place.page(agent_id, 0, None if end is None else end + 1)[0]
        return every[start:end], end is not None and len(every) > end

    def session(self, agent_id: str, session_id: str) -> tuple[StoredSession, Sessions]:
        """Return a session of an agent, and where it is kept.

        Raises:
            NotFoundError: there is none.
        """
        self.agent(agent_id)
        for sessions in self._places():
            session = sessions.get(session_id)
            if session is not None and session.agent_id == agent_id:
                return session, sessions
        raise NotFoundError(
            f"no session {session_id!r} of agent {agent_id!r}; one of an agent with enable_session_persistence false "
            "is gone once the server was started again"
        )

    def turn(self, agent_id: str, session_id: str, turn_id: str) -> StoredTurn:
        """Return a turn.

        Raises:
            NotFoundError: there is none.
        """
        _, sessions = self.session(agent_id, session_id)
        found = sessions.turns(session_id, [turn_id])
        if not found:
            raise NotFoundError(f"no turn {turn_id!r} of session {session_id!r}")
        return found[0]

    def config(self, agent_id: str) -> AgentConfig:
        """Return an agent's configuration."""
        return AgentConfig.model_validate(self.agent(agent_id).config)

    async def begin_turn(
        self, agent_id: str, session_id: str, request: CreateAgentTurnRequest
    ) -> AsyncIterator[Payload]:
        """Begin a turn, and return its events.

        Raises:
            ConfigError: everything in the request that cannot be done, at once.
            NotFoundError: there is no such agent, session or model.
            ConflictError: another turn of the session is under way.
            UnavailableError: the inference engine does not answer.
        """
        return run(await asyncio.to_thread(self._begun, agent_id, session_id, request))

    async def resume_turn(
        self, agent_id: str, session_id: str, turn_id: str, request: ResumeAgentTurnRequest
    ) -> AsyncIterator[Payload]:
        """Go on with a turn that waits for the caller's tools, and return its events.

        Raises:
            ConfigError: answers that are missing, unknown or given twice, at once.
            NotFoundError: there is no such agent, session, turn or model.
            ConflictError: the turn waits for nothing, has had all its generations, or another of the session is under
                way.
            UnavailableError: the inference engine does not answer.
        """
        work, responses = await asyncio.to_thread(self._resumed, agent_id, session_id, turn_id, request)
        return run(work, responses)

    def _begun(self, agent_id: str, session_id: str, request: CreateAgentTurnRequest) -> Work:
        config = self.config(agent_id)
        _, sessions = self.session(agent_id, session_id)
        if mistakes := list(_request_mistakes(request, config, self.model(config.model))):
            raise ConfigError(mistakes)
        body = request.model_dump(mode="json", exclude={"stream", "documents"})
        body[history.DOCUMENTS] = read_documents(request.documents or (), self.fetching)
        turn = StoredTurn(str(uuid.uuid4()), session_id, body, datetime.now(UTC))
        work = self._work(config, sessions, turn)
        work.turn = sessions.begin(turn)
        work.earlier = [one for one in sessions.turns(session_id) if one.number < work.turn.number]
        return work

    def _resumed(
        self, agent_id: str, session_id: str, turn_id: str, request: ResumeAgentTurnRequest
    ) -> tuple[Work, Sequence[ToolResponse]]:
        config = self.config(agent_id)
        _, sessions = self.session(agent_id, session_id)
        turn = self.turn(agent_id, session_id, turn_id)
        if turn.status != "awaiting_input" and not _may_have_been_parsed(turn):
            raise ConflictError(f"turn {turn_id!r} waits for no answers: it is {turn.status}")
        if mistakes := list(_response_mistakes(turn, request.tool_responses)):
            raise ConfigError(mistakes)
        if turn.generations >= most_generations(config):
            raise ConflictError(f"turn {turn_id!r} has had its {turn.generations} generations: begin another")
        work = self._work(config, sessions, turn)
        sessions.resume(session_id, turn_id, turn.status)
        every = sessions.turns(session_id)
        work.turn = next(one for one in every if one.turn_id == turn_id)
        work.earlier = [one for one in every if one.number < work.turn.number]
        return work, request.tool_responses

    def _work(self, config: AgentConfig, sessions: Sessions, turn: StoredTurn) -> Work:
        model = self.model(config.model)
        asked = ToolConfig.model_validate(turn.request.get("tool_config") or _tool_config(config))
        return Work(
            config=config,
            tool_config=asked,
            tools=config.client_tools or [],
            model=RemoteModel.of(model) if model.endpoint else self._of_engine(model),
            form=asked.tool_prompt_format or (None if model.endpoint else ToolPromptFormat.JSON),
            earlier=(),
            turn=turn,
            sessions=sessions,
            channels=self.channels,
            view=turn_view,
        )

    def _of_engine(self, model: ModelConfig) -> RemoteModel:
        return RemoteModel.of_engine(self.engine_url(), model.model_id, at_once=AT_ONCE)

    def _places(self) -> tuple[Sessions, Sessions]:
        return self.store.sessions, self.store.unkept_sessions


def _tool_config(config: AgentConfig) -> ToolConfig:
    """Return how an agent's tools are offered: by tool_config, else by the two older fields."""
    if config.tool_config:
        return config.tool_config
    return ToolConfig(tool_choice=config.tool_choice or ToolChoice.AUTO, tool_prompt_format=config.tool_prompt_format)


def _mistakes(config: AgentConfig, model: ModelConfig) -> Iterator[Mistake]:
    if model.model_type != "llm":
        yield Mistake("model", f"{config.model!r} ranks and writes no text: an agent takes a model of model_type llm")
    for name in ("toolgroups", "input_shields", "output_shields"):
        if getattr(config, name):
            yield Mistake(f"agent_config.{name}", "not available yet: leave it out, or take client_tools")
    names = [tool.name for tool in config.client_tools or ()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Mistake("agent_config.client_tools", f"{name!r} is there twice: name each tool once")
    for name in ("tool_choice", "tool_prompt_format") if config.tool_config else ():
        older, newer = getattr(config, name), getattr(config.tool_config, name)
        if older is not None and older != newer:
            yield Mistake(f"agent_config.{name}", f"is {older}, and tool_config says {newer}: leave it out")
    yield from _choice_mistakes("agent_config.tool_config.tool_choice", _tool_config(config), names)


def _choice_mistakes(where: str, config: ToolConfig, names: Sequence[str]) -> Iterator[Mistake]:
    choice = config.tool_choice
    if choice in (None, ToolChoice.AUTO, ToolChoice.NONE):
        return
    if choice == ToolChoice.REQUIRED and not names:
        yield Mistake(where, "is required, and the agent has no tools: leave it out")
    elif choice != ToolChoice.REQUIRED and choice not in names:
        known = ", ".join(["auto", "required", "none", *names])
        yield Mistake(where, f"found {choice!r}, allowed: {known}")


def _request_mistakes(request: CreateAgentTurnRequest, config: AgentConfig, model: ModelConfig) -> Iterator[Mistake]:
    if not request.messages:
        yield Mistake("messages", "is empty: say something")
    if request.toolgroups:
        yield Mistake("toolgroups", "not available yet: leave it out")
    if request.documents and not any(isinstance(message, UserMessage) for message in request.messages):
        yield Mistake("documents", "go with a user message: send one")
    for number, message in enumerate(request.messages):
        if isinstance(message, UserMessage) and not model.endpoint and has_images(message.content):
            yield Mistake(f"messages.{number}.content", f"the model {config.model!r} sees no images: send text")
    if request.tool_config:
        names = [tool.name for tool in config.client_tools or ()]
        yield from _choice_mistakes("tool_config.tool_choice", request.tool_config, names)


def _may_have_been_parsed(turn: StoredTurn) -> bool:
    """Return whether a turn ended in text that the caller may have read calls from, as ReAct agents do."""
    said = turn.output_message or {}
    return turn.status == "completed" and bool(said.get("content")) and not said.get("tool_calls")


def _response_mistakes(turn: StoredTurn, responses: Sequence[ToolResponse]) -> Iterator[Mistake]:
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
