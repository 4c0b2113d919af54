"""An agent as a benchmark's candidate: every row is a turn in a session of its own, by the same loop as in the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from llsflow.agents import history
from llsflow.agents.standalone import StandaloneAgent
from llsflow.data.conversation import Conversation
from llsflow.errors import LlsflowError, NotFoundError, Stopped, UnavailableError
from llsflow.models.generation import FILTERED, Generation
from llsflow.models.remote import MOST_IN_A_ROW
from llsflow.schema.agents import InferenceStep
from llsflow.schema.inference import CompletionMessage, StopReason
from llsflow.schema.kinds import or_known
from llsflow.store import StoredTurn

LOOK_SECONDS = 0.5
"""Between two looks at whether the user asked to stop."""

T = TypeVar("T")
Told = Callable[[int, Generation], None]


def named(records: Mapping[str, T], noun: str, name: str) -> T:
    """Return one of the records that an experiment holds.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in records:
        raise NotFoundError(f"no {noun} {name!r}{or_known(name, records)}")
    return records[name]


async def no_judge(name: str, _messages: Sequence[Mapping[str, Any]]) -> str:
    """Ask no model for a shield: an experiment that has such a one was refused.

    Raises:
        UnavailableError: always.
    """
    raise UnavailableError(f"the model {name!r} of a shield is not asked in an evaluation")


@dataclass
class AgentCandidateAnswers:
    """Has an agent answer rows."""

    agent: StandaloneAgent
    at_once: int
    """Turns at the same time."""
    seed: int | None = None
    """Of what is drawn: each row has one of its own, from this one on; null: the model's choice."""

    def answer(
        self,
        asked: Mapping[int, Conversation],
        *,
        on_generation: Told | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> dict[int, Generation]:
        """Return a generation for each conversation, by its place; one whose turn failed says why.

        Raises:
            ConfigError: the agent cannot be made: everything at once.
            UnavailableError: its model does not answer at all, or what its tools need is missing.
            Stopped: `stopping` said so.
        """
        return asyncio.run(self._answer(asked, on_generation, stopping))

    async def _answer(
        self, asked: Mapping[int, Conversation], told: Told | None, stopping: Callable[[], bool]
    ) -> dict[int, Generation]:
        tally = _Tally(told, max(MOST_IN_A_ROW, self.at_once))
        free = asyncio.Semaphore(self.at_once)

        async def one(place: int, said: Conversation) -> None:
            async with free:
                tally.take(place, *await self._turn(place, said))

        turns: list[asyncio.Task[None]] = []
        try:
            await self.agent.open()
            turns += [asyncio.create_task(one(place, said)) for place, said in asked.items()]
            await _all(turns, stopping)
        finally:
            for turn in turns:
                turn.cancel()
            await asyncio.gather(*turns, return_exceptions=True)
            await self.agent.close()
        return tally.all()

    async def _turn(self, place: int, said: Conversation) -> tuple[Generation, UnavailableError | None]:
        """Return what the agent answers; and why it did not, where that may not be this row's fault."""
        prompt = json.dumps(said.messages, ensure_ascii=False)
        try:
            earlier, asked = _turns(said)
        except ValueError as error:
            return Generation("", 0, "stop", prompt, str(error)), None
        seed = None if self.seed is None else self.seed + place
        session_id = self.agent.begin_session()
        again = self.agent.remote.endpoint.retries
        work = self.agent.turn(session_id, asked, earlier=earlier, seed=seed, again=again)
        try:
            async for _ in self.agent.events(work):
                pass
        except (ValueError, LlsflowError) as error:
            gone = error if isinstance(error, UnavailableError) else None
            passing = gone is not None
            return Generation("", 0, "stop", prompt, str(error), passing, work.turn.steps), gone
        finally:
            self.agent.sessions.delete(session_id)
        message = CompletionMessage.model_validate(work.turn.output_message)
        tokens = sum((step.get("usage") or {}).get("completion_tokens", 0) for step in work.turn.steps)
        why = FILTERED if work.finish == "content_filter" else None
        return Generation(str(message.content), tokens, work.finish, prompt, why, False, work.turn.steps), None


@dataclass
class _Tally:
    """What rows were answered; a failure counts as a row's own once another shows that the model answers."""

    told: Told | None
    most: int
    """Failures in a row after which the model is taken to be gone."""
    made: dict[int, Generation] = field(default_factory=dict)
    failed: dict[int, tuple[Generation, UnavailableError]] = field(default_factory=dict)

    def take(self, place: int, found: Generation, gone: UnavailableError | None) -> None:
        """Take an answer, or why there is none.

        Raises:
            UnavailableError: the model does not answer any longer.
        """
        if gone is not None:
            self.failed[place] = (found, gone)
            if len(self.failed) >= self.most:
                raise gone
            return
        for earlier, (failure, _) in self.failed.items():
            self._keep(earlier, failure)
        self.failed.clear()
        self._keep(place, found)

    def all(self) -> dict[int, Generation]:
        """Return every answer.

        Raises:
            UnavailableError: the model has answered nothing.
        """
        if self.failed and not self.made:
            raise next(iter(self.failed.values()))[1]
        for place, (failure, _) in self.failed.items():
            self._keep(place, failure)
        return self.made

    def _keep(self, place: int, found: Generation) -> None:
        self.made[place] = found
        if self.told:
            self.told(place, found)


async def _all(turns: Sequence[asyncio.Task[None]], stopping: Callable[[], bool]) -> None:
    """Wait for every turn.

    Raises:
        Stopped: the user asked to stop.
    """
    waiting = set(turns)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        for turn in done:
            turn.result()
        if waiting and stopping():
            raise Stopped("stopped; the answers so far are kept")


def _turns(said: Conversation) -> tuple[list[StoredTurn], list[dict[str, Any]]]:
    """Return the turns that a row's conversation holds already, and what the agent is asked.

    Raises:
        ValueError: an agent cannot be asked that, and why.
    """
    earlier: list[StoredTurn] = []
    asked: list[dict[str, Any]] = []
    if said.tools or said.documents or said.template_kwargs:
        raise ValueError(
            "tools, documents and chat_template_kwargs of a row are for models: an agent has its own tools"
        )
    for message in said.messages:
        if "tool_calls" in message:
            raise ValueError("a call cannot be said to an agent here: it makes its own calls")
        role, content = message["role"], message.get("content", "")
        if role == "user":
            asked.append({"role": "user", "content": content})
        elif role == "assistant" and asked:
            earlier.append(_past(len(earlier), asked, str(content)))
            asked = []
        else:
            raise ValueError(f"a message of the role {role} cannot be said to an agent here: it has instructions")
    if not asked:
        raise ValueError("the last message is not the user's")
    return earlier, asked


def _past(number: int, asked: Sequence[dict[str, Any]], answer: str) -> StoredTurn:
    message = CompletionMessage(content=answer, stop_reason=StopReason.END_OF_TURN)
    step = InferenceStep(turn_id=f"earlier-{number}", step_id=f"earlier-{number}", model_response=message)
    request = {"messages": list(asked), history.DOCUMENTS: []}
    return StoredTurn(step.turn_id, "", request, datetime.now(UTC), steps=(step.model_dump(mode="json"),))
