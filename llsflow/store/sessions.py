"""Sessions with agents: their turns, and the steps of these, each stored as it is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import bindparam, delete, func, insert, select, update

from llsflow.errors import BusyError, ConflictError, NotFoundError
from llsflow.store.agents import cut, one_more
from llsflow.store.database import Database
from llsflow.store.owners import lives, this_process
from llsflow.store.records import StoredSession, StoredTurn, TurnStatus
from llsflow.store.tables import agent_sessions, agent_steps, agent_turns

if TYPE_CHECKING:
    from sqlalchemy import Connection

P = ParamSpec("P")
T = TypeVar("T")

CUT_OFF = "the server was stopped in the middle of this turn"
"""The error of a turn whose process is gone."""

# what a turn asks for stands here ready: SQLAlchemy takes longer to build a statement than SQLite to answer it
_OF_SESSION = agent_turns.c.session_id == bindparam("of_session")
_OF_TURN = agent_turns.c.turn_id == bindparam("of_turn")
_SESSION = select(agent_sessions).where(agent_sessions.c.session_id == bindparam("of_session"))
_IS_RUNNING = agent_turns.c.status == "running"
_STATE = select(
    agent_sessions.c.session_id,
    select(func.max(agent_turns.c.number)).where(_OF_SESSION).scalar_subquery(),
    select(func.count()).where(_OF_SESSION, _IS_RUNNING).scalar_subquery(),
).where(agent_sessions.c.session_id == bindparam("of_session"))
"""Whether a session is there, the number of its last turn, and how many are under way."""
_RUNNING = select(agent_turns.c.turn_id, agent_turns.c.owner, agent_turns.c.started_at).where(_OF_SESSION, _IS_RUNNING)
_NEW_TURN = insert(agent_turns)
_NUM_STEPS = select(func.count(agent_steps.c.step_id)).where(agent_steps.c.turn_id == bindparam("of_turn"))
_NEW_STEP = (
    insert(agent_steps)
    .from_select(
        ["step_id", "turn_id", "number", "step"],
        select(
            bindparam("step_id", type_=agent_steps.c.step_id.type),
            agent_turns.c.turn_id,
            _NUM_STEPS.scalar_subquery(),
            bindparam("step", type_=agent_steps.c.step.type),
        ).where(_OF_TURN),
    )
    .execution_options(preserve_rowcount=True)
)
_TURN_CHANGES = update(agent_turns).where(_OF_TURN)
_FIELDS = [field.name for field in fields(StoredTurn) if field.name != "steps"]
_TURNS = select(*(agent_turns.c[name] for name in _FIELDS)).where(_OF_SESSION).order_by(agent_turns.c.number)
_STEPS = (
    select(agent_steps.c.turn_id, agent_steps.c.step)
    .join(agent_turns, agent_turns.c.turn_id == agent_steps.c.turn_id)
    .where(_OF_SESSION)
    .order_by(agent_steps.c.number)
)
_SOME = agent_turns.c.turn_id.in_(bindparam("turn_ids", expanding=True))
_SOME_TURNS, _SOME_STEPS = _TURNS.where(_SOME), _STEPS.where(_SOME)


@dataclass(frozen=True)
class Ending:
    """How a turn ends, or that it waits."""

    status: TurnStatus
    output_message: dict[str, Any]


class Sessions:
    """Sessions, where they are kept: in the store, or in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns that asks for sessions and what goes with them, called in a thread for that.

        To be used wherever turns of many sessions are under way in one event loop.
        """
        return await self._database.in_thread(function, *args, **kwargs)

    def create(self, session: StoredSession) -> None:
        """Store a new session, on disk when this returns."""
        with self._database.write() as connection:
            connection.execute(insert(agent_sessions).values(vars(session)))

    def get(self, session_id: str) -> StoredSession | None:
        """Return the session, or None."""
        with self._database.read() as connection:
            found = connection.execute(_SESSION, {"of_session": session_id}).mappings()
            return next((StoredSession(**row) for row in found), None)

    def page(self, agent_id: str, start: int, limit: int | None) -> tuple[Sequence[StoredSession], bool]:
        """Return up to `limit` sessions of an agent in the order of their beginnings, and whether there are more."""
        own = select(agent_sessions).where(agent_sessions.c.agent_id == agent_id)
        ordered = own.order_by(agent_sessions.c.started_at, agent_sessions.c.session_id).offset(start)
        with self._database.read() as connection:
            found = connection.execute(ordered.limit(one_more(limit))).mappings()
            return cut([StoredSession(**row) for row in found], limit)

    def delete(self, session_id: str) -> bool:
        """Remove a session with its turns, and return whether it was there."""
        with self._database.write() as connection:
            gone = delete(agent_sessions).where(agent_sessions.c.session_id == session_id)
            return connection.execute(gone).rowcount > 0

    def delete_of(self, agent_id: str) -> None:
        """Remove the sessions of an agent with their turns."""
        with self._database.write() as connection:
            connection.execute(delete(agent_sessions).where(agent_sessions.c.agent_id == agent_id))

    def begin(self, turn: StoredTurn) -> StoredTurn:
        """Store a new turn of this process as the last of its session, and return it with its number.

        Raises:
            NotFoundError: there is no such session.
            BusyError: another turn of the session is under way.
        """
        owner = this_process()
        with self._database.write() as connection:
            last = self._free(connection, turn.session_id)
            begun = replace(turn, number=0 if last is None else last + 1, owner=owner)
            connection.execute(_NEW_TURN, _columns(begun))
            return begun

    def resume(self, session_id: str, turn_id: str, was: TurnStatus) -> None:
        """Have this process go on with a turn that has the status `was`.

        Raises:
            NotFoundError: there is no such session.
            BusyError: another turn of the session is under way.
            ConflictError: this one has another status by now.
        """
        with self._database.write() as connection:
            self._free(connection, session_id)
            change = update(agent_turns).where(agent_turns.c.turn_id == turn_id, agent_turns.c.status == was)
            if not connection.execute(
                change.values(status="running", owner=this_process(), error=None, completed_at=None)
            ).rowcount:
                raise ConflictError(f"turn {turn_id!r} cannot be gone on with any longer")

    def add_step(
        self, turn_id: str, step: dict[str, Any], generations: int | None = None, ending: Ending | None = None
    ) -> datetime:
        """Store a step that is done as the last of its turn, on disk when this returns, and return when that was.

        Args:
            turn_id: of the turn.
            step: its record.
            generations: how many the turn has had with this one; null: as before.
            ending: how the turn ends with this step, in the same transaction; null: it goes on.

        Raises:
            NotFoundError: the turn was removed.
        """
        now = datetime.now(UTC)
        changes: dict[str, Any] = {} if generations is None else {"generations": generations}
        if ending is not None:
            changes |= {"status": ending.status, "owner": None, "error": None, "completed_at": now}
            changes["output_message"] = ending.output_message
        with self._database.write() as connection:
            row = {"step_id": step["step_id"], "of_turn": turn_id, "step": step}
            if not connection.execute(_NEW_STEP, row).rowcount:
                raise NotFoundError(f"turn {turn_id!r} was removed")
            if changes:
                connection.execute(_TURN_CHANGES, {"of_turn": turn_id, **changes})
        return now

    def end(
        self,
        turn_id: str,
        status: TurnStatus,
        *,
        output_message: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> datetime:
        """Store how a turn ended or that it waits, on disk when this returns, and return when that was."""
        now = datetime.now(UTC)
        changes: dict[str, Any] = {"status": status, "owner": None, "error": error, "completed_at": now}
        if output_message is not None:
            changes["output_message"] = output_message
        with self._database.write() as connection:
            connection.execute(_TURN_CHANGES, {"of_turn": turn_id, **changes})
        return now

    def turns(self, session_id: str, turn_ids: Collection[str] | None = None) -> Sequence[StoredTurn]:
        """Return the turns of a session in their order, or those of them that are named."""
        asked: dict[str, Any] = {"of_session": session_id}
        of_turns, of_steps = _TURNS, _STEPS
        if turn_ids is not None:
            asked["turn_ids"] = list(turn_ids)
            of_turns, of_steps = _SOME_TURNS, _SOME_STEPS
        found: dict[str, list[dict[str, Any]]] = {}
        with self._database.read() as connection:
            rows = connection.execute(of_turns, asked).all()
            for turn_id, step in connection.execute(of_steps, asked):
                found.setdefault(turn_id, []).append(step)
        # by place: SQLAlchemy's mappings of a long session take as long as the reading of it
        return [
            StoredTurn(**dict(zip(_FIELDS, row, strict=True)), steps=tuple(found.get(row.turn_id, ()))) for row in rows
        ]

    def _free(self, connection: Connection, session_id: str) -> int | None:
        """Make sure that no turn of the session is under way, and that none begins before this transaction ends.

        Returns the number of its last turn.

        Raises:
            NotFoundError: there is no such session.
            BusyError: one is.
        """
        self._database.lock_name(connection, "session", session_id)
        asked = {"of_session": session_id}
        session = connection.execute(_STATE, asked).first()
        if session is None:
            raise NotFoundError(f"no session {session_id!r}")
        _, last, running = session
        for turn_id, owner, since in connection.execute(_RUNNING, asked).all() if running else ():
            if owner and lives(owner, since):
                raise BusyError(f"turn {turn_id!r} of this session is under way: wait for it, or begin another session")
            ended = {"status": "failed", "owner": None, "error": CUT_OFF, "completed_at": datetime.now(UTC)}
            connection.execute(_TURN_CHANGES, {"of_turn": turn_id, **ended})
        number: int | None = last
        return number


def _columns(turn: StoredTurn) -> dict[str, Any]:
    return {name: value for name, value in vars(turn).items() if name != "steps"}
