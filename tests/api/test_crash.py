"""A server that is killed in the middle of a turn: what was done is there, and the session goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import PATIENCE_SECONDS
from tests.scripted import Answer, Scripted, scripted

SERVER = """
import sys
import uvicorn
from llsflow.agents.service import AgentsService
from llsflow.api.app import create_app
from llsflow.api.deps import Services
from llsflow.jobs.names import CatalogueNames
from llsflow.jobs.requests import known_model
from llsflow.schema.server import ServerConfig
from llsflow.store import Store

store = Store.open()
agents = AgentsService(store, lambda name: known_model(name, CatalogueNames(store)), engine_url=lambda: "")
server = uvicorn.Server(uvicorn.Config(create_app(Services(ServerConfig(port=0), store, None, agents)), port=0))
server.config.load()
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
server.run(sockets=[listener])
"""


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Yield a server in a process of its own, and a client of it."""
    words = [sys.executable, "-c", SERVER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as client:
            try:
                yield process, client
            finally:
                process.kill()


@pytest.fixture
def script(llsflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """A model that calls a tool, and then hangs in the middle of its answer."""
    monkeypatch.chdir(tmp_path)
    hold = threading.Event()

    def say(body: dict[str, Any], _: int) -> Any:
        last = body["messages"][-1]
        if last["role"] == "tool" and last["content"] == "42":
            return Answer("a slow answer", hold=hold)
        if last["content"] == "6 * 7?":
            return Answer(calls=[("calculator", '{"expression": "6 * 7"}')])
        return "a fine answer"

    with scripted(say) as found:
        folder = Path("conf/model")
        folder.mkdir(parents=True)
        (folder / "there.yaml").write_text(f"model_id: there\nendpoint:\n  base_url: {found.url}\n  retries: 0\n")
        yield found
        hold.set()


def test_after_kill_9_the_steps_are_there_and_the_session_goes_on(script: Scripted) -> None:
    config = {"model": "there", "instructions": "", "toolgroups": ["calculator"], "enable_session_persistence": True}
    said = {"messages": [{"role": "user", "content": "6 * 7?"}], "stream": True}
    with server() as (process, client):
        agent_id = client.post("/v1alpha/agents", json={"agent_config": config}).json()["agent_id"]
        place = f"/v1alpha/agents/{agent_id}/session"
        session_id = client.post(place, json={"session_name": "sums"}).json()["session_id"]
        with client.stream("POST", f"{place}/{session_id}/turn", json=said) as answer:
            # the model speaks for the second time: the tool's step was told, so it is stored
            inferences = 0
            for line in answer.iter_lines():
                if line and json.loads(line.removeprefix("data: "))["event"]["payload"].get("step_type") == "inference":
                    inferences += 'event_type":"step_start' in line
                if inferences == 2:
                    break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    with server() as (_, client):
        said = {"messages": [{"role": "user", "content": "hello"}]}
        turn = client.post(f"{place}/{session_id}/turn", json=said)
        assert turn.status_code == 200, turn.text
        session = client.get(f"{place}/{session_id}").json()
    cut, after = session["turns"]
    assert [step["step_type"] for step in cut["steps"]] == ["inference", "tool_execution"]
    assert cut["error"] == "the server was stopped in the middle of this turn"
    assert after["output_message"]["content"] == "a fine answer"
    told = [(message["role"], message["content"]) for message in script.sent[-1]["messages"]]
    assert told == [
        ("user", "6 * 7?"),
        ("assistant", None),
        ("tool", "42"),
        ("assistant", "[no answer]"),
        ("user", "hello"),
    ]
