"""Turns with agents at `llsflow serve`, whose model is an instant OpenAI-compatible stub; prints Markdown.

    python tests/bench/turns.py [--rounds 3] [--turns 10000] [--only latency busy agents history memory]

Server, stub and client share the machine. What a turn adds to the model's own time is told beside the stub asked
directly, in the same round; what the reference server needs is quoted.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import endpoint
import server
import yaml
from repeated import asking, in_turns, p99, said
from tables import Line, Rounds, added_line, check_line, quoted_line, ratio_line, table
from wire import Wire, request

PART = "turns"
MODEL = "stub"
EVENT, TEXT = b"data: ", b'"type":"text"'
"""Where the first event of a stream begins, and the first piece of its answer."""
COUNT = 100
"""Requests of each kind in a round."""
AT_ONCE, BUSY_SECONDS = 16, 8.0
TURNS_OF_A_SESSION = 10
PAGE, FEW, MANY = 20, 10, 5000
LONG, LONGER = 100, 500
"""Turns of a session."""
LONG_COUNT = 15
SETTLED = 1000
"""Turns after which the server has what it keeps for all."""


@dataclass(frozen=True)
class Bench:
    """What is measured, and how often."""

    port: int
    pid: int
    stub_port: int
    rounds: int
    turns: int

    def agent(self, wire: Wire, *, kept: bool = True) -> str:
        """Make an agent, and return the path of its sessions."""
        config = {"model": MODEL, "instructions": "Be brief.", "enable_session_persistence": kept}
        return f"/v1alpha/agents/{wire.json('POST', '/v1alpha/agents', {'agent_config': config})['agent_id']}/session"


def main() -> None:
    """Measure and print the section."""
    parts = {"latency": latency, "busy": busy, "agents": agents, "history": history, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=10_000, help="after which the memory is measured")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, endpoint.stub() as url:
        folder = Path(scratch)
        conf = folder / "conf" / "model" / f"{MODEL}.yaml"
        conf.parent.mkdir(parents=True)
        conf.write_text(yaml.safe_dump({"model_id": MODEL, "endpoint": {"base_url": url, "at_once": 64}}))
        with server.ours(folder) as (port, pid):
            bench = Bench(port, pid, urlsplit(url).port or 80, options.rounds, options.turns)
            lines = [line for name in options.only for line in parts[name](bench)]
    print(f"### Turns with agents (medians of {options.rounds} rounds)\n\n{table(lines)}\n")


def begun(wire: Wire, sessions: str) -> str:
    """Begin a session, and return the path of its turns."""
    return f"{sessions}/{wire.json('POST', sessions, {'session_name': 'bench'})['session_id']}/turn"


def turn(path: str, *, stream: bool) -> bytes:
    """Return the request of a turn."""
    messages = [{"role": "user", "content": "What is 41 and 1, and is it still so?"}]
    return request("POST", path, {"messages": messages, "stream": stream})


def streamed(wire: Wire, path: str, mark: int = -1) -> float:
    """Return the seconds of a streamed turn to its first event (0), to its first text (1) or to its end."""
    return wire.marked(turn(path, stream=True), EVENT, TEXT)[mark]


def latency(bench: Bench) -> Iterator[Line]:
    """Measure a session's first turn on an idle server, for sessions that are kept and those that are not."""
    body = {"model": "m", "messages": [{"role": "user", "content": "What is 41 and 1?"}], "stream": True}
    direct = request("POST", "/v1/chat/completions", body)
    with Wire(bench.port) as wire, Wire(bench.stub_port) as stub:
        for kept in (True, False):
            sessions = bench.agent(wire, kept=kept)

            def once(wire: Wire = wire, sessions: str = sessions) -> float:
                return wire.timed(turn(begun(wire, sessions), stream=False))

            def marked(mark: int, wire: Wire = wire, sessions: str = sessions) -> float:
                return streamed(wire, begun(wire, sessions), mark)

            asked: dict[str, Callable[[], float]] = {
                "direct": lambda stub=stub: stub.marked(direct)[-1],
                "turn": once,
                "event": partial(marked, 0),
                "text": partial(marked, 1),
                "streamed": partial(marked, -1),
            }
            yield from _latencies(in_turns(asked, bench.rounds, COUNT, PART), "kept" if kept else "not kept")


def _latencies(times: Mapping[str, Rounds], kept: str) -> Iterator[Line]:
    what = f"turn of one step, session {kept}"
    beside = "its model asked directly"
    yield added_line(f"{what}: p50 above the model's own", beside, times["turn"], times["direct"], 0.015)
    yield added_line(f"{what}: p99 above the model's own", beside, times["turn"], times["direct"], middle=p99)
    yield quoted_line(f"{what}: to its first event, p50", times["event"], 0.017, 0.01)
    yield quoted_line(f"{what}: to its first text, p50", times["text"])
    yield quoted_line(f"{what}: streamed to its end, p50", times["streamed"], 0.043)


def busy(bench: Bench) -> Iterator[Line]:
    """Measure many streamed turns at once, and then what somebody else waits meanwhile: to ask takes from the turns."""
    rates: list[float] = []
    waits: list[list[float]] = []
    with Wire(bench.port) as wire:
        sessions = bench.agent(wire)
    for number in range(bench.rounds):
        over, done = threading.Event(), itertools.count()

        def reader(over: threading.Event = over, done: Iterator[int] = done) -> None:
            _until(bench.port, sessions, over.is_set, done)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            readers = [pool.submit(reader) for _ in range(AT_ONCE)]
            time.sleep(1.0)  # all of them are at it
            before, began = next(done), time.perf_counter()
            time.sleep(BUSY_SECONDS)
            rates.append((next(done) - before) / (time.perf_counter() - began))
            waits.append(asking(bench.port, request("GET", "/v1/health"), lambda seconds: seconds > BUSY_SECONDS))
            over.set()
            for one in readers:
                one.result()
        said(PART, f"round {number + 1}: {rates[-1]:.1f} turns/s, health p99 {p99(waits[-1]) * 1e3:.1f} ms")
    rate, wait = statistics.median(rates), statistics.median(map(p99, waits))
    what = f"{AT_ONCE} streamed turns at once, sessions of {TURNS_OF_A_SESSION} turns"
    yield check_line(what, f"{rate:.0f} turns/s", "≥ 60 turns/s", rate >= 60)
    yield check_line("p99 of GET /v1/health meanwhile", f"{wait * 1e3:.0f} ms", "≤ 50 ms", wait <= 0.05)


def _until(port: int, sessions: str, over: Callable[[], bool], done: Iterator[int]) -> None:
    """Have one streamed turn after the other, and count them."""
    with Wire(port) as wire:
        for number in itertools.takewhile(lambda _: not over(), itertools.count()):
            if number % TURNS_OF_A_SESSION == 0:
                path = begun(wire, sessions)
            streamed(wire, path)
            next(done)


def agents(bench: Bench) -> Iterator[Line]:
    """Measure a page of agents among few and among many."""
    first = request("GET", f"/v1alpha/agents?limit={PAGE}")
    last = request("GET", f"/v1alpha/agents?limit={PAGE}&start_index={MANY - 2 * PAGE}")
    with Wire(bench.port) as wire:
        there = len(wire.json("GET", "/v1alpha/agents")["data"])
        for _ in range(max(0, FEW - there)):
            bench.agent(wire)
        few = in_turns({"few": partial(wire.timed, first)}, bench.rounds, COUNT, PART)["few"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda count: _make(bench, count), [(MANY - FEW) // 4] * 4))
    with Wire(bench.port) as wire:
        asked = {"first": partial(wire.timed, first), "last": partial(wire.timed, last)}
        many = in_turns(asked, bench.rounds, COUNT, PART)
    what = f"page of {PAGE} agents, {MANY:,} stored"
    yield ratio_line(f"{what}, the first", f"{FEW} stored", many["first"], few, 1.5)
    yield ratio_line(f"{what}, the last", f"{FEW} stored", many["last"], few)
    yield quoted_line(what, many["first"], 8.0)


def _make(bench: Bench, count: int) -> None:
    with Wire(bench.port) as wire:
        for _ in range(count):
            bench.agent(wire)


def history(bench: Bench) -> Iterator[Line]:
    """Measure a turn in a session that has many, and getting such a session."""
    with Wire(bench.port) as wire:
        sessions = bench.agent(wire)
        paths = {}
        for length in (LONG, LONGER):
            paths[length] = begun(wire, sessions)
            for _ in range(length):
                wire.ask(turn(paths[length], stream=False))
        whole = partial(wire.timed, request("GET", paths[LONGER].removesuffix("/turn")))
        got = in_turns({"session": whole}, bench.rounds, LONG_COUNT, PART)["session"]
        asked = {
            "none": lambda: streamed(wire, begun(wire, sessions)),
            "long": partial(streamed, wire, paths[LONG]),
            "longer": partial(streamed, wire, paths[LONGER]),
        }
        times = in_turns(asked, bench.rounds, LONG_COUNT, PART)
    middle = statistics.median(map(statistics.median, got))
    yield check_line(f"session of {LONGER} turns, p50", f"{middle * 1e3:.1f} ms", "≤ 50 ms", middle <= 0.05)
    for length, found in ((LONG, times["long"]), (LONGER, times["longer"])):
        yield ratio_line(f"streamed turn after {length} others", "the first of a session", found, times["none"])
    yield quoted_line(f"streamed turn after {LONG} others", times["long"], 0.182)


def memory(bench: Bench) -> Iterator[Line]:
    """Measure what the server has grown by after many turns."""
    for kept in (True, False):
        with Wire(bench.port) as wire:
            sessions = bench.agent(wire, kept=kept)
        _have(bench, sessions, SETTLED)
        settled = server.memory(bench.pid)
        _have(bench, sessions, bench.turns - SETTLED)
        grown = (server.memory(bench.pid) - settled) / 2**20
        each = grown * 1024 / (bench.turns - SETTLED)
        said(PART, f"{'kept' if kept else 'not kept'}: {grown:.1f} MiB")
        what = f"memory of the server after {bench.turns:,} turns, above that after {SETTLED:,}: sessions"
        found = f"{grown:.1f} MiB, {each:.2f} KiB a turn"
        yield check_line(f"{what} kept", found, "< 20 MB", grown < 19) if kept else Line(f"{what} not kept", found)


def _have(bench: Bench, sessions: str, count: int) -> None:
    """Have so many turns, four at a time, in sessions of their own."""
    numbers = itertools.count()

    def enough() -> bool:
        return next(numbers) >= count

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(_until, bench.port, sessions, enough, itertools.count()) for _ in range(4)]:
            one.result()


if __name__ == "__main__":
    main()
