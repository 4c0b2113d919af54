"""The evaluation step against an instant OpenAI-compatible stub, and bare asyncio clients, in rows per second.

    python tests/bench/endpoint.py {llsflow|aiohttp|httpx} [--rows 2000 --at-once 16]

All ask a stub in a process of its own, so many requests at once; `llsflow`, which asks by aiohttp, also keeps each
answer on disk as it comes, scores the rows and records the step in MLflow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 1},
    }
).encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode()
WORDS = ("Forty", "-two", ", as", " ever", ".")
"""Of a streamed answer, an event each."""


def _streamed() -> bytes:
    """Return a streamed completion, a chunk for each event."""
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    said = [{"object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
    counted = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(WORDS), "total_tokens": 14}}
    events = [f"data: {json.dumps(event)}\n\n" for event in (*said, counted)]
    chunks = "".join(f"{len(event):x}\r\n{event}\r\n" for event in (*events, "data: [DONE]\n\n"))
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return f"{head}{chunks}0\r\n\r\n".encode()


STREAMED = _streamed()
STREAM = re.compile(rb'"stream": ?true')


class Stub(asyncio.Protocol):
    """Answers each request with the same completion, as soon as it is whole: streamed where that is asked for."""

    def __init__(self) -> None:
        self.came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self.came += data
        while (end := self.came.find(b"\r\n\r\n")) >= 0:
            head = self.came[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.came) < end + 4 + length:
                return
            streams = STREAM.search(self.came, end, end + 4 + length)
            self.came = self.came[end + 4 + length :]
            self.transport.write(STREAMED if streams else HEAD + ANSWER)


async def serve() -> None:
    """Serve until this process ends, and say where."""
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def stub() -> Iterator[str]:
    """Give the address of a stub in a process of its own."""
    with subprocess.Popen([sys.executable, __file__, "stub"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def asked(ask: Callable[[Mapping[str, Any]], Awaitable[Any]], rows: int, at_once: int) -> float:
    """Return the seconds of the requests alone."""
    numbers = iter(range(rows))

    async def worker() -> None:
        for number in numbers:
            await ask({"model": "m", "messages": [{"role": "user", "content": f"q{number}"}], "temperature": 0})

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return time.perf_counter() - began


async def by_aiohttp(url: str, rows: int, at_once: int) -> float:
    """Ask by the client that we use."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as client:

        async def ask(body: Mapping[str, Any]) -> Any:
            async with client.post(f"{url}/chat/completions", json=body) as response:
                return await response.json()

        return await asked(ask, rows, at_once)


async def by_httpx(url: str, rows: int, at_once: int) -> float:
    """Ask by the client that OpenAI's own library uses."""
    import httpx

    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, limits=limits, trust_env=False, timeout=600) as client:

        async def ask(body: Mapping[str, Any]) -> Any:
            return (await client.post("/chat/completions", json=body)).json()

        return await asked(ask, rows, at_once)


def llsflow(url: str, rows: int, at_once: int) -> float:
    """Return the seconds of the evaluation step, from its first request to its recorded result."""
    from llsflow.config import load_experiment
    from llsflow.garbage import look_seldom
    from llsflow.plan import compile_plan
    from llsflow.steps.context import Origin
    from llsflow.steps.execute import execute
    from llsflow.steps.opening import open_plan_run

    look_seldom()  # as `llsflow run` does: where a look falls is chance, and it costs as much as 300 rows
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "rows.jsonl")
        data.write_text("".join(json.dumps({"question": f"q{n}", "answer": "yes"}) + "\n" for n in range(rows)))
        words: list[Any] = [
            "model=endpoint",
            f"model.endpoint.base_url={url}",
            f"model.endpoint.at_once={at_once}",
            f"+datasets.own={{dataset_id: own, purpose: eval/question-answer, uri: '{data}'}}",
            "benchmark.dataset_id=own",
            "benchmark.benchmark_config.eval_candidate.sampling_params={strategy: {type: greedy}}",
        ]
        plan = compile_plan(load_experiment("eval", words).experiment)
        with open_plan_run(plan, [], lambda: False, Origin("")) as plan_run:
            result = execute(plan.step("evaluate-base"), plan_run, {})[0]
        assert result.summary["scores"]["basic::equality"]["accuracy"]["num_correct"] == rows
        return result.seconds


def main() -> None:
    """Measure one kind and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("llsflow", "aiohttp", "httpx", "stub"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=16)
    options = parser.parse_args()
    if options.kind == "stub":
        asyncio.run(serve())
        return
    with stub() as url:
        given = (url, options.rows, options.at_once)
        if options.kind == "llsflow":
            seconds = llsflow(*given)
        else:
            seconds = asyncio.run(by_aiohttp(*given) if options.kind == "aiohttp" else by_httpx(*given))
    print(json.dumps({"rate": options.rows / seconds, "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
