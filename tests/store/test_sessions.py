"""Agents, and sessions with them: kept step by step, one turn at a time, in the store or in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llsflow.errors import ConflictError, NotFoundError
from llsflow.store import Store, StoredAgent, StoredSession, StoredTurn
from llsflow.store.sessions import CUT_OFF, Sessions

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def step(name: str) -> dict[str, Any]:
    return {"step_id": name, "step_type": "inference", "model_response": {"content": f"said by {name}"}}


def turn(name: str, session: str = "s") -> StoredTurn:
    return StoredTurn(name, session, {"messages": [{"role": "user", "content": name}]}, NOW)


@pytest.fixture(params=["kept", "unkept"])
def sessions(store: Store, request: pytest.FixtureRequest) -> Sessions:
    found = store.sessions if request.param == "kept" else store.unkept_sessions
    found.create(StoredSession("s", "a", "sums", NOW))
    return found


def test_agents_come_in_pages_in_the_order_of_their_creation(store: Store) -> None:
    made = [StoredAgent(f"a{n}", {"model": "m", "number": n}, NOW + timedelta(seconds=n)) for n in (2, 0, 1)]
    for agent in made:
        store.agents.create(agent)
    ordered = sorted(made, key=lambda agent: agent.created_at)
    assert store.agents.page(0, None) == (ordered, False)
    assert store.agents.page(0, 2) == (ordered[:2], True)
    assert store.agents.page(1, 2) == (ordered[1:], False)
    assert store.agents.get("a1") == ordered[1]
    assert store.agents.delete("a1")
    assert not store.agents.delete("a1")
    assert store.agents.get("a1") is None


def test_a_turn_is_kept_step_by_step(sessions: Sessions) -> None:
    begun = sessions.begin(turn("t0"))
    sessions.add_step("t0", step("one"), generations=1)
    sessions.add_step("t0", step("two"))
    (found,) = sessions.turns("s")
    assert found == replace(begun, steps=(step("one"), step("two")), generations=1)
    ended = sessions.end("t0", "completed", output_message={"content": "done"})
    (found,) = sessions.turns("s")
    assert (found.status, found.output_message, found.completed_at) == ("completed", {"content": "done"}, ended)


def test_one_turn_at_a_time_in_their_order(sessions: Sessions) -> None:
    for number in range(3):
        assert sessions.begin(turn(f"t{number}")).number == number
        with pytest.raises(ConflictError, match=f"'t{number}' of this session is under way"):
            sessions.begin(turn("another"))
        sessions.end(f"t{number}", "completed")
    assert [one.turn_id for one in sessions.turns("s")] == ["t0", "t1", "t2"]
    assert [one.turn_id for one in sessions.turns("s", ["t2", "t0", "none"])] == ["t0", "t2"]
    with pytest.raises(NotFoundError, match="no session 'none'"):
        sessions.begin(turn("t", "none"))


def test_a_turn_that_waits_is_resumed_once(sessions: Sessions) -> None:
    sessions.begin(turn("t"))
    sessions.end("t", "awaiting_input", output_message={"content": ""})
    sessions.resume("s", "t", "awaiting_input")
    with pytest.raises(ConflictError, match="under way"):
        sessions.resume("s", "t", "awaiting_input")
    sessions.end("t", "completed")
    with pytest.raises(ConflictError, match="cannot be gone on with"):
        sessions.resume("s", "t", "awaiting_input")


def test_what_is_removed_takes_all_below_it_along(sessions: Sessions) -> None:
    sessions.create(StoredSession("other", "b", "", NOW))
    sessions.begin(turn("t"))
    sessions.add_step("t", step("one"))
    sessions.delete_of("a")
    assert sessions.get("s") is None
    assert sessions.turns("s") == []
    with pytest.raises(NotFoundError, match="'t' was removed"):
        sessions.add_step("t", step("two"))
    assert sessions.delete("other")
    assert not sessions.delete("other")


def test_sessions_come_in_pages(sessions: Sessions) -> None:
    later = [StoredSession(f"s{n}", "a", f"{n}", NOW + timedelta(seconds=n)) for n in (1, 2)]
    for session in [*later, StoredSession("foreign", "b", "", NOW)]:
        sessions.create(session)
    found, more = sessions.page("a", 1, 1)
    assert (found, more) == (later[:1], True)
    assert sessions.page("a", 2, None) == (later[1:], False)


BEGIN = """
import os, sys
from datetime import UTC, datetime
from llsflow.store import Store, StoredTurn
store = Store.open(sys.argv[1])
store.sessions.begin(StoredTurn("t", "s", {}, datetime.now(UTC)))
store.sessions.add_step("t", {"step_id": "one"})
print("begun", flush=True)
sys.stdin.read()
"""


def test_a_turn_of_a_killed_process_keeps_its_steps_and_lets_the_session_go_on(store: Store, url: str) -> None:
    store.sessions.create(StoredSession("s", "a", "", NOW))
    command = [sys.executable, "-c", BEGIN, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(ConflictError, match="under way"):
            store.sessions.begin(turn("next"))
        other.kill()
        other.wait()
    assert store.sessions.begin(turn("next")).number == 1
    cut, _ = store.sessions.turns("s")
    assert (cut.status, cut.error, cut.steps) == ("failed", CUT_OFF, ({"step_id": "one"},))
