"""Code that a turn runs at the server, in a sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llsflow.home import home
from tests.api.conftest import Served
from tests.api.talks import ANSWERS, talk
from tests.http_server import Handler, serve
from tests.scripted import Answer, Scripted
from tests.tools.sandboxes import skip_without_sandbox

TRIES = """
import os, pathlib, socket
found = []
for path in ("/etc/passwd", "/etc/shadow", {home!r}, {checkout!r}):
    try:
        found.append(str(os.listdir(path) if os.path.isdir(path) else open(path).read())[:50])
    except OSError:
        pass
for address in (("127.0.0.1", {port}), ("10.0.0.1", 80), ("169.254.169.254", 80)):
    try:
        socket.create_connection(address, timeout=2)
        found.append(address)
    except OSError:
        pass
print("found", found, "SECRET" in os.environ)
"""


def test_a_turn_reads_no_file_and_reaches_no_address_through_code(
    served: Served, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_sandbox()
    monkeypatch.setenv("SECRET", "not for it")
    checkout = str(Path(__file__).parents[2] / "README.md")
    with serve(Handler) as port:
        code = TRIES.format(home=str(home()), checkout=checkout, port=port)
        ANSWERS["try it"] = Answer(calls=[("code_interpreter", json.dumps({"code": code}))])
        one = talk(served, script, toolgroups=["builtin::code_interpreter"])
        one.say("try it")
    assert script.sent[-1]["messages"][-1]["content"].strip() == "found [] False"
