"""A scripted OpenAI-compatible server: real HTTP on the loopback address; it keeps what it was sent."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.http_server import Handler, serve
from tests.patience import PATIENCE_SECONDS

Say = Callable[[dict[str, Any], int], Any]
"""The body of a request and its number, from 0 -> a text, or an `Answer`."""


@dataclass
class Answer:
    """What the server answers: a text, or an error with a status and headers."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    reasoning: str = ""
    """Sent apart, before the text, where it is not empty."""
    finish: str = "stop"
    calls: Sequence[tuple[str, str]] = ()
    """Names and arguments of functions that are called."""
    ids: Sequence[str] = ()
    """Of the calls; none: call_0, call_1, …"""
    hold: threading.Event | None = None
    """Waited for before the last piece of a streamed answer."""
    body: Any = None
    """Instead of a completion or an error of the protocol."""
    events: bytes | None = None
    """Instead of the events of a stream: its body as it is."""


@dataclass
class Scripted:
    """A server under way."""

    say: Say
    url: str = ""
    sent: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, in the order in which they came."""
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], headers: dict[str, str], path: str = "") -> Answer:
        """Return what the script says to a request."""
        with self.guard:
            number = len(self.sent)
            self.sent.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            said = self.say(body, number)
        finally:
            with self.guard:
                self.at_once -= 1
        return said if isinstance(said, Answer) else Answer(str(said))


@contextmanager
def scripted(say: Say) -> Iterator[Scripted]:
    """Yield a server that answers as `say` says."""
    script = Scripted(say)

    class Completions(Handler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes: 40 ms between them otherwise

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length))
            said = script.answer(body, dict(self.headers), self.path)
            if body.get("stream") and said.status == 200 and said.body is None:
                self.stream(said)
                return
            content = json.dumps(_body(said)).encode()
            self.send_response(said.status)
            for name, value in {**said.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def stream(self, said: Answer) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            if said.events is not None:
                self.wfile.write(said.events)
                return
            pieces = _pieces(said)
            for place, piece in enumerate(pieces):
                if said.hold and place == len(pieces) - 1:
                    said.hold.wait(PATIENCE_SECONDS)
                self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")

    with serve(Completions) as port:
        script.url = f"http://127.0.0.1:{port}/v1"
        yield script


def _pieces(said: Answer) -> list[dict[str, Any]]:
    """Return the chunks of a streamed completion: words, calls in two parts each, the end, and the count."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": said.reasoning}] if said.reasoning else []
    deltas += [{"content": part} for part in re.findall(r"\S+\s*|\s+", said.text)]
    for index, (name, arguments) in enumerate(said.calls):
        begin = {
            "id": said.ids[index] if said.ids else f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        deltas.append({"tool_calls": [{"index": index, **begin}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    finish = "tool_calls" if said.calls else said.finish
    ends: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}},
    ]
    return [*({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas), *ends]


def _body(said: Answer) -> Any:
    if said.body is not None:
        return said.body
    if said.status != 200:
        return {"error": {"message": said.text, "type": "invalid_request_error", "param": None, "code": None}}
    choice = {"index": 0, "message": {"role": "assistant", "content": said.text}, "finish_reason": said.finish}
    return {"object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": 3}}
