"""The step that looks passages up: of a session's documents, those that are too long to go to the model whole."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llsflow.agents import history
from llsflow.agents.content import text_of
from llsflow.agents.documents import inserted_passages
from llsflow.agents.passages import Embed, best, passages_of, ranked
from llsflow.schema.agents import AgentTurnResponseStepStartPayload, MemoryRetrievalStep, StepType
from llsflow.schema.base import Record
from llsflow.schema.inference import UserMessage
from llsflow.schema.server import AgentsConfig
from llsflow.store import StoredTurn

PLACE = "documents"
"""Stands as the step's vector_db_ids: passages are of the session's own documents."""


@dataclass(frozen=True)
class Retrieval:
    """How passages are looked up."""

    config: AgentsConfig = field(default_factory=AgentsConfig)
    embed: Embed | None = None
    """null: by shared words."""

    async def search(self, turns: Sequence[StoredTurn], query: str, most: int) -> list[str]:
        """Return at most so many passages of the documents of some turns, the best first.

        Raises:
            LlsflowError: the embedding model does not answer.
        """
        texts = [text for turn in turns for text in turn.request.get(history.DOCUMENTS, ())]
        found = await ranked(query, await passages_of(texts, self.config), self.config, self.embed)
        return [passage.text for passage in found[:most]]

    async def step(self, earlier: Sequence[StoredTurn], turn: StoredTurn) -> MemoryRetrievalStep | None:
        """Return the passages that go with a turn's question; None: every document stands whole in the prompt.

        Raises:
            LlsflowError: the embedding model does not answer.
        """
        texts = _beyond(earlier, turn, self.config.documents_characters)
        asked = [message for message in history.input_messages(turn) if isinstance(message, UserMessage)]
        if not texts or not asked:
            return None
        began = datetime.now(UTC)
        query = "\n".join(text_of(message.content) for message in asked)
        found = await best(query, await passages_of(texts, self.config), self.config, self.embed)
        return MemoryRetrievalStep(
            turn_id=turn.turn_id,
            step_id=str(uuid.uuid4()),
            started_at=began,
            completed_at=datetime.now(UTC),
            vector_db_ids=PLACE,
            inserted_context=inserted_passages(found),
        )


def started(step: MemoryRetrievalStep) -> Record:
    """Return the event of the step's beginning."""
    return AgentTurnResponseStepStartPayload(step_type=StepType.MEMORY_RETRIEVAL, step_id=step.step_id, metadata={})


def _beyond(earlier: Sequence[StoredTurn], turn: StoredTurn, most: int) -> list[str]:
    """Return the documents that do not stand whole in the prompt: those from which on there are too many characters."""
    whole = 0
    beyond: list[str] = []
    for one in [*history.told(earlier), turn]:
        texts: Sequence[str] = one.request.get(history.DOCUMENTS, ())
        characters = sum(map(len, texts))
        if history.has_passages(one) or (one is turn and whole + characters > most):
            beyond += texts
        else:
            whole += characters
    return beyond
