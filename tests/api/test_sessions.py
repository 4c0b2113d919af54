"""Sessions with agents: begun, listed, removed, many at once, left by their reader, and what each costs the store."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from llama_stack_client import ConflictError, NotFoundError
from sqlalchemy import Engine
from sqlalchemy.event import listen, remove

from tests.api.conftest import Served
from tests.api.talks import ANSWERS, Talk, talk
from tests.patience import PATIENCE_SECONDS
from tests.scripted import Answer, Scripted


def test_sessions_are_begun_listed_and_removed(served: Served, script: Scripted) -> None:
    one = talk(served, script, enable_session_persistence=True)
    other = one.agents.session.create(one.agent_id, session_name="others").session_id
    page = one.agents.session.list(one.agent_id, limit=1)
    assert [found["session_id"] for found in page.data] == [one.session_id]
    assert page.has_more
    assert [found["session_id"] for found in served.http.get(page.url).json()["data"]] == [other]
    one.say("hello")
    assert [found["turns"] for found in one.agents.session.list(one.agent_id).data] == [[], []]
    one.agents.session.delete(one.session_id, agent_id=one.agent_id)
    with pytest.raises(NotFoundError):
        one.agents.session.retrieve(one.session_id, agent_id=one.agent_id)
    stranger = Talk(served.client)
    with pytest.raises(NotFoundError):
        one.agents.session.retrieve(other, agent_id=stranger.agent_id)


def test_one_turn_at_a_time(served: Served, script: Scripted) -> None:
    hold = threading.Event()
    ANSWERS["slowly"] = Answer("a slow answer", hold=hold)
    one = talk(served, script)
    events = one.say("slowly", stream=True)
    next(iter(events))
    try:
        with pytest.raises(ConflictError, match="under way") as busy:
            one.say("hello")
        assert busy.value.response.headers["retry-after"] == "5"
        assert "x-should-retry" not in busy.value.response.headers
    finally:
        hold.set()
    assert [chunk.event.payload.event_type for chunk in events][-1] == "turn_complete"
    one.say("hello")


def test_a_client_that_goes_away_ends_the_turn_and_leaves_the_session(served: Served, script: Scripted) -> None:
    hold = threading.Event()
    ANSWERS["slowly"] = Answer("a slow answer", hold=hold)
    one = talk(served, script, enable_session_persistence=True)
    place = f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}/turn"
    body = {"messages": [{"role": "user", "content": "slowly"}], "stream": True}
    with httpx.Client(base_url=served.url) as leaving, leaving.stream("POST", place, json=body) as answer:
        next(answer.iter_lines())  # read no further: the connection closes
    try:
        sessions = served.services.store.sessions
        while (turn := sessions.turns(one.session_id)[0]).status == "running":
            pass
    finally:
        hold.set()
    assert (turn.status, turn.error) == ("failed", "the client went away in the middle of this turn")
    assert one.say("hello").output_message.content == "a fine answer"


def test_sessions_that_are_not_kept_say_so(served: Served, script: Scripted) -> None:
    kept, unkept = talk(served, script, enable_session_persistence=True), talk(served, script)
    for one in (kept, unkept):
        one.say("hello")
    assert served.services.store.sessions.get(kept.session_id)
    assert served.services.store.sessions.get(unkept.session_id) is None
    with pytest.raises(NotFoundError, match="is gone once the server was started again"):
        unkept.agents.session.retrieve("another", agent_id=unkept.agent_id)


def test_two_hundred_sessions_at_once(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    sessions = [one.agents.session.create(one.agent_id, session_name=f"{n}").session_id for n in range(200)]

    async def talk_to(client: httpx.AsyncClient, number: int) -> str:
        body = {"messages": [{"role": "user", "content": f"hello {number}"}], "stream": number % 2 == 0}
        answer = await client.post(f"/v1alpha/agents/{one.agent_id}/session/{sessions[number]}/turn", json=body)
        events = answer.text.strip().split("\n\n")
        last = json.loads(events[-1].removeprefix("data: ")) if body["stream"] else answer.json()
        assert last.get("error") is None, last
        turn = last["event"]["payload"]["turn"] if body["stream"] else last
        return str(turn["input_messages"][0]["content"] + ": " + turn["output_message"]["content"])

    async def talk_to_all() -> list[str]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=served.url, timeout=PATIENCE_SECONDS, limits=limits, trust_env=False
        ) as client:
            return await asyncio.gather(*(talk_to(client, number) for number in range(200)))

    assert asyncio.run(talk_to_all()) == [f"hello {number}: a fine answer" for number in range(200)]
    kept = served.services.store.unkept_sessions
    assert {kept.turns(session)[0].status for session in sessions} == {"completed"}


@pytest.mark.parametrize("kept", [True, False])
def test_a_list_takes_as_many_statements_as_one_that_is_short(served: Served, script: Scripted, kept: bool) -> None:
    one = talk(served, script, enable_session_persistence=kept)
    places = [
        f"/v1alpha/agents/{one.agent_id}/sessions",
        f"/v1alpha/agents/{one.agent_id}/session/{one.session_id}",
        "/v1alpha/agents",
    ]
    one.say("hello")
    short = [statements(served, place) for place in places]
    for number in range(5):
        one.say("hello")
        one.agents.session.create(one.agent_id, session_name=f"{number}")
        one.agents.create(agent_config={"model": "there", "instructions": ""})
    assert [statements(served, place) for place in places] == short


def statements(served: Served, place: str) -> int:
    """Return how many statements the answer to a GET takes."""
    seen: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    listen(Engine, "before_cursor_execute", count)
    try:
        assert served.http.get(place).status_code == 200
    finally:
        remove(Engine, "before_cursor_execute", count)
    return len(seen)
