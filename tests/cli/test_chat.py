"""`llsflow chat`: a conversation in the terminal, and by a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llsflow.cli import main
from tests.scripted import Answer, Scripted, scripted


def say(body: dict[str, Any], _: int) -> Any:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"it is {last['content']}"
    if last["content"].endswith("?"):
        return Answer(calls=[("calculator", json.dumps({"expression": last["content"].rstrip("?")}))])
    return f"you said {last['content']}"


@pytest.fixture
def script(llsflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """A model behind an endpoint, under the name `there`."""
    monkeypatch.chdir(tmp_path)
    with scripted(say) as found:
        folder = Path("conf/model")
        folder.mkdir(parents=True)
        (folder / "there.yaml").write_text(f"model_id: there\nendpoint:\n  base_url: {found.url}\n  retries: 0\n")
        yield found


def test_each_line_of_a_pipe_is_said_and_the_answers_are_printed(
    script: Scripted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("6 * 7?\nhello\n\n/new\nagain\n"))
    assert main(["chat", "agent=calculator", "--model", "there"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["it is 42", "you said hello", "a new session", "you said again"]
    assert [message["role"] for message in script.sent[2]["messages"]] == ["user", "assistant", "tool", *ANSWERED]
    assert [message["content"] for message in script.sent[-1]["messages"]] == ["again"]


ANSWERED = ("assistant", "user")


def test_a_document_goes_with_the_next_message(
    script: Scripted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("notes.txt").write_text("Rome is old.")
    monkeypatch.setattr("sys.stdin", io.StringIO("/file notes.txt\nhello\n/file nowhere.txt\n/what\n"))
    assert main(["chat", "agent.model=there"]) == 0
    assert "Rome is old." in script.sent[0]["messages"][-1]["content"]
    out = capsys.readouterr().out
    assert "nowhere.txt" in out
    assert "known are /new, /file PATH and /quit" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["agent=nobody"], "no agent 'nobody'"),
        (["agent.model=their"], "no model 'their'; did you mean 'there'?"),
        ([], "model: not set yet"),
        (["agent.model=there", "agent.toolgroups=[calculater]"], "no tool group 'calculater'"),
    ],
)
def test_what_is_wrong_is_told(
    script: Scripted, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["chat", *words]) == 2
    assert told in capsys.readouterr().err


def test_in_a_terminal_the_tools_are_shown(script: Scripted) -> None:
    master, slave = pty.openpty()
    words = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]
    words += ["chat", "agent=calculator", "--model", "there"]
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=os.environ) as process:
        os.close(slave)
        os.write(master, b"6 * 7?\n/quit\n")
        shown = b""
        try:
            while part := os.read(master, 4096):
                shown += part
        except OSError:  # it has ended
            pass
        assert process.wait() == 0
    os.close(master)
    text = shown.decode()
    assert 'calculator {"expression": "6 * 7"}' in text
    assert "[42]" in text
    assert "it is 42" in text
    assert "and the tools calculator; /quit ends it" in text
