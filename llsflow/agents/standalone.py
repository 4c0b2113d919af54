"""An agent without an API: by the same loop, with sessions in this process's memory."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llsflow.agents import checks, history
from llsflow.agents.generating import Channels
from llsflow.agents.guards import AgentShields, Guards
from llsflow.agents.retrieval import Retrieval
from llsflow.agents.toolbox import Toolbox
from llsflow.agents.toolgroups import ToolGroups
from llsflow.agents.traces import EndedTurn, Watch
from llsflow.agents.turn import run
from llsflow.agents.views import turn_view
from llsflow.agents.work import Payload, Work
from llsflow.errors import ConfigError, Mistake
from llsflow.models.remote import RemoteModel
from llsflow.schema.agents import AgentConfig
from llsflow.schema.models import ModelConfig
from llsflow.schema.shields import ShieldConfig
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.shields import Ask
from llsflow.store import StoredSession, StoredTurn
from llsflow.store.memory import MemoryDatabase
from llsflow.store.sessions import Sessions


@dataclass
class StandaloneAgent:
    """Has turns; used in one event loop, between `open` and `close`."""

    config: AgentConfig
    model: ModelConfig
    remote: RemoteModel
    """Where the model answers."""
    find_group: Callable[[str], ToolGroupConfig]
    """Returns the tool group of a name; NotFoundError, ConfigError."""
    find_shield: Callable[[str], ShieldConfig]
    """Returns the shield of a name; NotFoundError, ConfigError."""
    judge: Ask
    """What asks the model of a shield."""
    trace: Callable[[EndedTurn], None] | None = None
    """Takes each turn that ended, to make its trace; null: none is made."""
    sessions: Sessions = field(default_factory=lambda: Sessions(MemoryDatabase()))
    channels: Channels = field(default_factory=Channels)
    toolbox: Toolbox = field(default_factory=Toolbox)

    def __post_init__(self) -> None:
        self.groups = ToolGroups(self.find_group)
        self.guards = Guards(self.find_shield, self.judge)
        self.shields = AgentShields()

    async def open(self) -> None:
        """Make its tools ready.

        Raises:
            ConfigError: everything in its configuration that cannot be done, at once.
            UnavailableError: what one of its tool groups needs is missing, or does not answer.
        """
        mistakes: list[Mistake] = []
        if self.config.client_tools:
            mistakes.append(Mistake("client_tools", "there is no caller here that runs them: take toolgroups"))
        named = [(f"toolgroups.{place}", group) for place, group in enumerate(self.config.toolgroups or ())]
        try:
            self.toolbox = await self.groups.toolbox(named)
        except ConfigError as error:
            mistakes += error.mistakes
        try:
            self.shields = self.guards.of(self.config)
        except ConfigError as error:
            mistakes += error.mistakes
        mistakes += checks.agent_mistakes(self.config, self.model, self.toolbox.names)
        if mistakes:
            raise ConfigError(mistakes)

    async def close(self) -> None:
        """End what its turns have open."""
        await self.groups.close()
        await self.guards.close()
        await self.channels.close()

    def begin_session(self) -> str:
        """Begin a session, and return its id."""
        session = StoredSession(str(uuid.uuid4()), "", "", datetime.now(UTC))
        self.sessions.create(session)
        return session.session_id

    def turn(
        self,
        session_id: str,
        messages: Sequence[dict[str, Any]],
        *,
        documents: Sequence[str] = (),
        earlier: Sequence[StoredTurn] = (),
        seed: int | None = None,
        again: int = 0,
    ) -> Work:
        """Return a turn that is to be run, by `events`.

        Args:
            session_id: a session that was begun here.
            messages: the user's, as the specification has them.
            documents: texts that go with them.
            earlier: turns of elsewhere that stand before those of the session.
            seed: of what is drawn; null: the model's choice.
            again: how often an answer that broke off is asked for anew.
        """
        name = self.config.name or "agent"
        before = self.sessions.turns(session_id)
        request = {"messages": list(messages), history.DOCUMENTS: list(documents)}
        tool_config = checks.tool_config_of(self.config)
        return Work(
            config=self.config,
            tool_config=tool_config,
            toolbox=self.toolbox,
            input_shields=self.shields.input,
            output_shields=self.shields.output,
            retrieval=Retrieval(),
            model=self.remote,
            form=checks.form_of(tool_config, self.model, self.config),
            earlier=[*earlier, *before],
            turn=self.sessions.begin(StoredTurn(str(uuid.uuid4()), session_id, request, datetime.now(UTC))),
            sessions=self.sessions,
            channels=self.channels,
            view=turn_view,
            watch=Watch(self.trace, name, name, self.model.model_id) if self.trace else None,
            seed=seed,
            again=again,
        )

    def events(self, work: Work) -> AsyncGenerator[Payload]:
        """Return the events of a turn."""
        return run(work)
