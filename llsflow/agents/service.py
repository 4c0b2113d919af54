"""What the API asks of agents: make, look, remove, and have turns with them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llsflow.agents import checks, history
from llsflow.agents.documents import read_documents
from llsflow.agents.generating import JUDGE_TOKENS, Channels
from llsflow.agents.guards import Guards
from llsflow.agents.retrieval import Retrieval
from llsflow.agents.toolbox import Toolbox
from llsflow.agents.toolgroups import ToolGroups
from llsflow.agents.traces import EndedTurn, Watch
from llsflow.agents.turn import Begun, begun
from llsflow.agents.views import turn_view
from llsflow.agents.work import Work, most_generations
from llsflow.config.named import AGENTS, SHIELDS, TOOLGROUPS
from llsflow.errors import ConfigError, ConflictError, NotFoundError
from llsflow.models.remote import RemoteModel
from llsflow.schema.agents import AgentConfig, AgentToolGroup, CreateAgentTurnRequest, ResumeAgentTurnRequest
from llsflow.schema.inference import ToolConfig
from llsflow.schema.models import ModelConfig
from llsflow.schema.server import AgentsConfig, FetchConfig
from llsflow.store import Store, StoredAgent, StoredSession, StoredTurn
from llsflow.store.sessions import Sessions

CONF_CREATED = datetime(1970, 1, 1, tzinfo=UTC)
"""When agents of conf/agent were made: at no time of this server's."""

CLOSING_SECONDS = 10.0
"""Longest wait for programs and connections to be closed."""

READERS = 4
"""Turns whose documents are read at the same time; others wait."""

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
    trace: Callable[[EndedTurn], None] | None = None
    """Takes each turn that ended, to make its trace; null: none is made."""
    settings: AgentsConfig = field(default_factory=AgentsConfig)
    channels: Channels = field(default_factory=Channels)
    toolgroups: ToolGroups = field(default_factory=lambda: ToolGroups(TOOLGROUPS.find))
    guards: Guards = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = None

    def __post_init__(self) -> None:
        self.guards = Guards(SHIELDS.find, self._judge)
        # reading may take a minute, and other turns must not wait for a thread
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="documents")

    async def create(self, config: AgentConfig) -> str:
        """Make an agent, and return its id.

        Raises:
            ConfigError: everything in the configuration that cannot be done, at once.
            NotFoundError: there is no such model.
            UnavailableError: what one of its tool groups needs is missing, or does not answer.
        """
        model = await asyncio.to_thread(self.model, config.model)
        try:
            toolbox, mistakes = await self._toolbox(config), []
        except ConfigError as error:
            toolbox, mistakes = Toolbox(config.client_tools or []), list(error.mistakes)
        mistakes += checks.agent_mistakes(config, model, toolbox.names)
        try:
            await asyncio.to_thread(self.guards.of, config)
        except ConfigError as error:
            mistakes += error.mistakes
        if mistakes:
            raise ConfigError(mistakes)
        agent_id = str(uuid.uuid4())
        agent = StoredAgent(agent_id, config.model_dump(mode="json"), datetime.now(UTC))
        await asyncio.to_thread(self.store.agents.create, agent)
        return agent_id

    def agent(self, agent_id: str) -> StoredAgent:
        """Return an agent: one that was made, or a file of conf/agent.

        Raises:
            NotFoundError: there is none.
            ConfigError: its file has mistakes, or leaves something open.
        """
        agent = self.store.agents.get(agent_id)
        if agent is not None:
            return agent
        try:
            return _of_conf(agent_id, AGENTS.find(agent_id))
        except NotFoundError:
            raise NotFoundError(f"no agent {agent_id!r}") from None

    def agents(self, start: int, limit: int | None) -> tuple[Sequence[StoredAgent], bool]:
        """Return a page of the agents: the files of conf/agent, then those that were made, the oldest first."""
        of_conf = [_of_conf(agent_id, config) for agent_id, config, _ in AGENTS.complete()]
        first = of_conf[start:] if limit is None else of_conf[start : start + limit]
        left = None if limit is None else limit - len(first)
        made, more = self.store.agents.page(max(0, start - len(of_conf)), left)
        return [*first, *made], more

    def delete(self, agent_id: str) -> None:
        """Remove an agent with its sessions.

        Raises:
            NotFoundError: there is none.
            ConflictError: it is a file of conf/agent.
        """
        self.agent(agent_id)
        if self.store.agents.get(agent_id) is None:
            raise ConflictError(f"agent {agent_id!r} is a file of conf/agent: remove the file")
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
        return self._session(agent_id, session_id)

    def _session(self, agent_id: str, session_id: str) -> tuple[StoredSession, Sessions]:
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

    async def begin_turn(self, agent_id: str, session_id: str, request: CreateAgentTurnRequest) -> Begun:
        """Begin a turn, and return its events.

        Raises:
            ConfigError: everything in the request that cannot be done, at once.
            NotFoundError: there is no such agent, session or model.
            ConflictError: another turn of the session is under way.
            UnavailableError: the inference engine does not answer.
        """
        config = await self.store.sessions.in_thread(self.config, agent_id)
        toolbox = await self._toolbox(config, request.toolgroups)
        texts: list[str] = []
        if request.documents:
            await self.store.sessions.in_thread(self._check, agent_id, session_id, request, config, toolbox)
            loop = asyncio.get_running_loop()
            texts = await loop.run_in_executor(self._reading, read_documents, request.documents, self.fetching)
        asked = (agent_id, session_id, request, config, toolbox, texts)
        return await begun(await self.store.sessions.in_thread(self._begun, *asked))

    async def resume_turn(self, agent_id: str, session_id: str, turn_id: str, request: ResumeAgentTurnRequest) -> Begun:
        """Go on with a turn that waits for the caller's tools, and return its events.

        Raises:
            ConfigError: answers that are missing, unknown or given twice, at once.
            NotFoundError: there is no such agent, session, turn or model.
            ConflictError: the turn waits for nothing, has had all its generations, or another of the session is under
                way.
            UnavailableError: the inference engine does not answer.
        """
        config = await self.store.sessions.in_thread(self.config, agent_id)
        turn = await self.store.sessions.in_thread(self.turn, agent_id, session_id, turn_id)
        began = CreateAgentTurnRequest.model_validate(turn.request, extra="ignore")
        toolbox = await self._toolbox(config, began.toolgroups)
        work = await self.store.sessions.in_thread(self._resumed, agent_id, turn, request, config, toolbox)
        return await begun(work, request.tool_responses)

    async def close(self) -> None:
        """End what turns have open: connections, programs."""
        await self.toolgroups.close()
        await self.guards.close()
        self._reading.shutdown(wait=False, cancel_futures=True)
        await self.channels.close()

    def close_from_outside(self) -> None:
        """Do the same from another thread, where the event loop of the turns still runs."""
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self.close(), self._loop).result(CLOSING_SECONDS)

    async def _toolbox(self, config: AgentConfig, more: Sequence[AgentToolGroup] | None = None) -> Toolbox:
        """Return an agent's tools, and those that a turn adds.

        Raises:
            ConfigError, UnavailableError: as `ToolGroups.toolbox`.
        """
        self._loop = asyncio.get_running_loop()
        own = [(f"agent_config.toolgroups.{place}", group) for place, group in enumerate(config.toolgroups or ())]
        added = [(f"toolgroups.{place}", group) for place, group in enumerate(more or ())]
        if not own and not added:
            return Toolbox(config.client_tools or [])
        return await self.toolgroups.toolbox([*own, *added], config.client_tools or [])

    def _check(
        self, agent_id: str, session_id: str, request: CreateAgentTurnRequest, config: AgentConfig, toolbox: Toolbox
    ) -> tuple[Sessions, ModelConfig]:
        """Return where the session is kept, and the model, of a turn in which nothing is wrong."""
        _, sessions = self._session(agent_id, session_id)
        model = self.model(config.model)
        mistakes = [*checks.agent_mistakes(config, model, toolbox.names)]
        mistakes += checks.request_mistakes(request, config, model, toolbox.names)
        if mistakes:
            raise ConfigError(mistakes)
        return sessions, model

    def _begun(
        self,
        agent_id: str,
        session_id: str,
        request: CreateAgentTurnRequest,
        config: AgentConfig,
        toolbox: Toolbox,
        documents: Sequence[str],
    ) -> Work:
        sessions, model = self._check(agent_id, session_id, request, config, toolbox)
        body = request.model_dump(mode="json", exclude={"stream", "documents"})
        body[history.DOCUMENTS] = list(documents)
        turn = StoredTurn(str(uuid.uuid4()), session_id, body, datetime.now(UTC))
        work = self._work(agent_id, config, model, toolbox, sessions, turn)
        work.turn = sessions.begin(turn)
        if work.turn.number:
            work.earlier = [one for one in sessions.turns(session_id) if one.number < work.turn.number]
        return work

    def _resumed(
        self, agent_id: str, turn: StoredTurn, request: ResumeAgentTurnRequest, config: AgentConfig, toolbox: Toolbox
    ) -> Work:
        _, sessions = self._session(agent_id, turn.session_id)
        if turn.status != "awaiting_input" and not checks.may_have_been_parsed(turn):
            raise ConflictError(f"turn {turn.turn_id!r} waits for no answers: it is {turn.status}")
        if mistakes := list(checks.response_mistakes(turn, request.tool_responses)):
            raise ConfigError(mistakes)
        if turn.generations >= most_generations(config):
            raise ConflictError(f"turn {turn.turn_id!r} has had its {turn.generations} generations: begin another")
        work = self._work(agent_id, config, self.model(config.model), toolbox, sessions, turn)
        sessions.resume(turn.session_id, turn.turn_id, turn.status)
        every = sessions.turns(turn.session_id)
        work.turn = next(one for one in every if one.turn_id == turn.turn_id)
        work.earlier = [one for one in every if one.number < work.turn.number]
        return work

    def _work(
        self,
        agent_id: str,
        config: AgentConfig,
        model: ModelConfig,
        toolbox: Toolbox,
        sessions: Sessions,
        turn: StoredTurn,
    ) -> Work:
        asked = ToolConfig.model_validate(turn.request.get("tool_config") or checks.tool_config_of(config))
        shields = self.guards.of(config)
        return Work(
            config=config,
            tool_config=asked,
            toolbox=toolbox,
            input_shields=shields.input,
            output_shields=shields.output,
            retrieval=Retrieval(self.settings, self._embed if self.settings.embedding_model else None),
            model=self._remote(model),
            form=checks.form_of(asked, model, config),
            earlier=(),
            turn=turn,
            sessions=sessions,
            channels=self.channels,
            view=turn_view,
            watch=Watch(self.trace, agent_id, config.name or agent_id, model.model_id) if self.trace else None,
        )

    def _remote(self, model: ModelConfig) -> RemoteModel:
        """Return where a model answers."""
        if model.endpoint:
            return RemoteModel.of(model)
        return RemoteModel.of_engine(self.engine_url(), model.model_id, at_once=AT_ONCE)

    async def _embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return the vectors of texts, by the embedding model of the server's settings."""

        def vectors() -> list[list[float]]:
            found = self._remote(self.model(self.settings.embedding_model or "")).embed(dict(enumerate(texts)))
            wrong = next((one for one in found.values() if isinstance(one, ValueError)), None)
            if wrong is not None:
                raise wrong
            return [vector for _, vector in sorted(found.items()) if not isinstance(vector, ValueError)]

        return await asyncio.to_thread(vectors)

    async def _judge(self, name: str, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return what a shield's model says."""
        remote = await asyncio.to_thread(lambda: self._remote(self.model(name)))
        return await self.channels.ask(remote, messages, JUDGE_TOKENS)

    def _places(self) -> tuple[Sessions, Sessions]:
        return self.store.sessions, self.store.unkept_sessions


def _of_conf(agent_id: str, config: AgentConfig) -> StoredAgent:
    return StoredAgent(agent_id, config.model_dump(mode="json"), CONF_CREATED)
