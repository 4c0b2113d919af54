"""The inference engine under streams: tokens a second of many at once and of one, and the time to a first token.

python tests/bench/engine.py FIXTURE [--streams 16 --rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from tables import Line, check_line, ratio_line, table

TOKENS = 64
"""Of each answer."""
URL = "/v1/chat/completions"


@dataclass(frozen=True)
class Told:
    """One stream, as its reader saw it."""

    first_seconds: float
    seconds: float
    tokens: int


@contextlib.contextmanager
def engine(fixture: Path) -> Iterator[str]:
    """Yield the address of an engine that knows the fixture's model and has answered once."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder, "model", "fixture.yaml")
        conf.parent.mkdir()
        conf.write_text(yaml.safe_dump({"model_id": "fixture", "path": str(fixture / "model")}))
        command = [sys.executable, "-m", "llsflow.models.engine", "--device", "cpu", "--config-dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            try:
                httpx.post(address + URL, json=_body("warm", 1), timeout=120, trust_env=False).raise_for_status()
                yield address
            finally:
                process.terminate()


def _body(text: str, tokens: int = TOKENS, **more: Any) -> dict[str, Any]:
    # sampled at a high temperature: an untrained model does not end by itself before its last token
    said = [{"role": "user", "content": text}]
    return {"model": "fixture", "messages": said, "temperature": 1.5, "seed": 1, "max_tokens": tokens, **more}


async def stream(client: httpx.AsyncClient, text: str, tokens: int = TOKENS) -> Told:
    """Read one answer as it comes."""
    began = time.perf_counter()
    first, used = 0.0, 0
    body = _body(text, tokens, stream=True, stream_options={"include_usage": True})
    async with client.stream("POST", URL, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            first = first or (time.perf_counter() - began if line else 0.0)
            if '"usage": {' in line:
                used = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    return Told(first, time.perf_counter() - began, used)


@contextlib.asynccontextmanager
async def load(client: httpx.AsyncClient, questions: Sequence[str], streams: int) -> AsyncIterator[None]:
    """Keep so many streams going, a new one for each that ends."""

    async def reader(number: int) -> None:
        for turn in range(1_000_000):
            await stream(client, questions[(number + turn * streams) % len(questions)])

    readers = [asyncio.create_task(reader(number)) for number in range(streams)]
    try:
        await asyncio.sleep(1.0)
        yield
    finally:
        for one in readers:
            one.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def measure(address: str, questions: Sequence[str], streams: int, rounds: int) -> list[Line]:
    """Return the lines of the table."""
    limits = httpx.Limits(max_connections=4 * streams)
    async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False, limits=limits) as client:
        one, many, alone, loaded = [], [], [], []
        for number in range(rounds):
            asked = questions[number * streams :]
            single = [await stream(client, text) for text in asked[:4]]
            one.append(sum(told.tokens for told in single) / sum(told.seconds for told in single))
            began = time.perf_counter()
            together = await asyncio.gather(*(stream(client, text) for text in asked[:streams]))
            many.append(sum(told.tokens for told in together) / (time.perf_counter() - began))
            alone.append([(await stream(client, text, 1)).first_seconds for text in asked[:10]])
            async with load(client, asked, streams - 1):
                loaded.append([(await stream(client, text, 1)).first_seconds for text in asked[:10]])
    ratios = [a / b for a, b in zip(many, one, strict=True)]
    shown = f"{statistics.median(many):,.0f} tokens/s, {', '.join(f'{ratio:.2f}' for ratio in ratios)} × one alone"
    kept = statistics.median(ratios) >= 4
    return [
        check_line(f"{streams} streams at once", shown, "≥ 4 × one", kept),
        ratio_line(f"first token beside {streams - 1} streams", "alone", loaded, alone, 3),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixture", type=Path)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    questions = [json.loads(line)["question"] for line in (options.fixture / "qa.jsonl").read_text().splitlines()]
    with engine(options.fixture) as address:
        lines = asyncio.run(measure(address, questions, options.streams, options.rounds))
    print(f"### The inference engine (medians of {options.rounds} rounds)\n\n{table(lines)}\n")


if __name__ == "__main__":
    main()
