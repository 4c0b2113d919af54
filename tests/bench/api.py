"""The API beside bare FastAPI routes, each a process of its own, asked in turns by one client; prints Markdown.

    python tests/bench/api.py [--rounds 3] [--rows 1000000]

A ratio is taken within a round, where one request to each follows the other, and the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import first_step
import rows
import server
from repeated import asking, in_turns, p99, said
from tables import Line, check_line, ratio_line, table
from wire import Wire, request

HERE = Path(__file__).parent
PART = "API"
SMALL = 1000
APPENDED_ROWS = 100
PAGES, APPENDS = 300, 60
"""Requests of each kind in a round."""
SCAN_ROWS = 1000
WRITERS, WRITES = 16, 100
ASK_SECONDS = 6.0
READERS = 2
RERANKS = 50
STARTS = 11
IMPORTS = "import fastapi, sqlalchemy"


def main() -> None:
    """Measure and print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large data set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows.write(folder / "small.jsonl", SMALL)
        rows.write(folder / "large.jsonl", options.rows)
        with server.ours(folder) as (port, pid), server.yardstick(folder, SMALL // 2 - rows.PAGE_ROWS // 2) as bare:
            idle = server.memory(pid)
            with Wire(port) as own, Wire(bare) as theirs:
                lines = list(requests(own, theirs, options.rows, options.rounds))
                lines += reranking(own, options.rounds)
                lines += scan(own, options.rows, pid, idle)
                lines += writers(port)
                lines += others(port, folder, options.rows, options.rounds)
        lines += starts(folder, STARTS)
        steps = first_step.measure(folder / "jobs", options.rounds)
    print(f"### The API (medians of {options.rounds} rounds)\n")
    print(table(lines) + "\n")
    print("From the POST of a training job to its first optimizer step, on a warm server:\n")
    print(first_step.table(steps) + "\n")


def register(wire: Wire, name: str, rows_of: str) -> None:
    """Register a file of the folder."""
    source = {"type": "uri", "uri": rows_of}
    body = {"dataset_id": name, "purpose": "eval/question-answer", "source": source}
    wire.json("POST", "/v1beta/datasets", body)


def page(name: str, count: int, limit: int = rows.PAGE_ROWS) -> bytes:
    """Return the request for the page in the middle of a data set."""
    return request("GET", f"/v1beta/datasetio/iterrows/{name}?start_index={count // 2 - limit // 2}&limit={limit}")


def requests(own: Wire, theirs: Wire, large: int, rounds: int) -> Iterator[Line]:
    """Measure single requests on an idle server."""
    register(own, "small", "small.jsonl")
    began = time.perf_counter()
    register(own, "large", "large.jsonl")
    said(PART, f"{large:,} rows registered in {time.perf_counter() - began:.1f} s")
    appended = {"rows": [rows.row(number) for number in range(APPENDED_ROWS)]}
    asked = {
        "small": partial(own.timed, page("small", SMALL)),
        "plain": partial(theirs.timed, request("GET", "/page")),
        "declared": partial(theirs.timed, request("GET", "/declared-page")),
        "large": partial(own.timed, page("large", large)),
    }
    times = in_turns(asked, rounds, PAGES, PART)
    register(own, "grows", "small.jsonl")
    asked = {
        "append": partial(own.timed, request("POST", "/v1beta/datasetio/append-rows/grows", appended)),
        "fsync": partial(theirs.timed, request("POST", "/append", appended)),
        "barest": partial(theirs.timed, request("POST", "/append-body", appended)),
    }
    times |= in_turns(asked, rounds, APPENDS, PART)
    first, middle = f"page of {rows.PAGE_ROWS} rows of {SMALL:,}", f"the same of {large:,}"
    yield ratio_line(first, "bare route, the same rows from memory", times["small"], times["plain"], 1.5)
    yield ratio_line(first, "the same, async and typed", times["small"], times["declared"])
    yield ratio_line(middle, f"ours of {SMALL:,}", times["large"], times["small"], 1.5)
    what = f"append of {APPENDED_ROWS} rows"
    yield ratio_line(what, "bare route, a line for each row, fsync", times["append"], times["fsync"], 2)
    yield ratio_line(what, "bare route, async, the body as it came, fsync", times["append"], times["barest"])


def reranking(own: Wire, rounds: int) -> Iterator[Line]:
    """Measure the order of 1,000 items of 40 words by BM25."""
    draw = random.Random(0)  # noqa: S311 - words, not secrets
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(3000)]
    items = [" ".join(draw.choices(words, k=40)) for _ in range(1000)]
    body = {"model": "bm25", "query": " ".join(draw.choices(words, k=8)), "items": items}
    ask = partial(own.timed, request("POST", "/v1alpha/inference/rerank", body))
    times = in_turns({"rerank": ask}, rounds, RERANKS, PART)
    middle = statistics.median(statistics.median(one) for one in times["rerank"])
    yield check_line("BM25 rerank of 1,000 items, p50", f"{middle * 1e3:.1f} ms", "≤ 20 ms", middle <= 0.02)


def scan(own: Wire, large: int, pid: int, idle: int) -> Iterator[Line]:
    """Read the large data set from its start to its end."""
    began = time.perf_counter()
    found = 0
    for first in range(0, large, SCAN_ROWS):
        path = f"/v1beta/datasetio/iterrows/large?start_index={first}&limit={SCAN_ROWS}"
        found += own.ask(request("GET", path)).count(b'"source":')
    rate = found / (time.perf_counter() - began)
    grown = (server.memory(pid) - idle) / 2**20
    said(PART, f"scan {rate:,.0f} rows/s, {grown:.0f} MiB above idle")
    what = f"all {large:,} rows by pages of {SCAN_ROWS:,}"
    yield check_line(what, f"{rate:,.0f} rows/s", "≥ 50,000", found == large and rate >= 50_000)
    yield check_line("memory of the server after that, above idle", f"{grown:.0f} MiB", "≤ 100 MiB", grown <= 100)


def writers(port: int) -> Iterator[Line]:
    """Have many append at once, and look whether every row is there, each writer's in its order."""
    with Wire(port) as wire:
        source = {"type": "rows", "rows": [{"question": "writer 0", "answer": "-1"}]}
        wire.json("POST", "/v1beta/datasets", {"dataset_id": "w", "purpose": "eval/question-answer", "source": source})

    def write(writer: int) -> None:
        with Wire(port) as wire:
            for number in range(WRITES):
                row = {"question": f"writer {writer}", "answer": str(number)}
                wire.json("POST", "/v1beta/datasetio/append-rows/w", {"rows": [row]})

    began = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    seconds = time.perf_counter() - began
    with Wire(port) as wire:
        kept = wire.json("GET", "/v1beta/datasetio/iterrows/w")["data"][1:]
    in_order = all(
        [row["answer"] for row in kept if row["question"] == f"writer {writer}"] == [str(n) for n in range(WRITES)]
        for writer in range(WRITERS)
    )
    said(PART, f"{WRITERS} writers: {WRITERS * WRITES / seconds:,.0f} appends/s")
    found = f"{len(kept):,} kept of {WRITERS * WRITES:,}, {WRITERS * WRITES / seconds:,.0f} appends/s"
    whole = len(kept) == WRITERS * WRITES and in_order
    yield check_line(f"{WRITERS} writers at once, {WRITES} appends each", found, "all, in order", whole)


def others(port: int, folder: Path, large: int, rounds: int) -> Iterator[Line]:
    """Measure what somebody else waits while a large set is read or registered."""
    times: dict[str, list[list[float]]] = {"idle": [], "read": [], "register": []}
    small = request("GET", "/v1beta/datasets/small")
    for number in range(rounds):
        times["idle"].append(asking(port, small, lambda seconds: seconds > ASK_SECONDS))
        with load(port, *[("read", str(large))] * READERS):
            times["read"].append(asking(port, small, lambda seconds: seconds > ASK_SECONDS))
        with load(port, ("register", "large.jsonl", f"again-{number}")) as (registering,):
            times["register"].append(asking(port, small, lambda _, load=registering: load.poll() is not None))
        with Wire(port) as wire:
            wire.json("DELETE", f"/v1beta/datasets/again-{number}")
        told = ", ".join(f"{name} {p99(found[-1]) * 1e3:.1f} ms of {len(found[-1])}" for name, found in times.items())
        said(PART, f"round {number + 1}, p99 of others: {told}")
    size = f"{large:,} rows"
    read = f"p99 of another request while {READERS} read {size} by pages of 10,000"
    yield ratio_line(read, "idle", times["read"], times["idle"], 5, middle=p99)
    registered = f"p99 of another request while {size} are registered from a file"
    yield ratio_line(registered, "idle", times["register"], times["idle"], 5, middle=p99)


@contextlib.contextmanager
def load(port: int, *works: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Keep the server busy from processes of their own."""
    started = []
    try:
        for words in works:
            command = [sys.executable, str(HERE / "api_load.py"), str(port), *words]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert started[-1].stdout is not None
            started[-1].stdout.readline()
        yield started
    finally:
        for process in started:
            process.terminate()
            process.wait()


def starts(folder: Path, rounds: int) -> Iterator[Line]:
    """Measure from the start of `llsflow serve` to its first answered read, beside bare imports."""
    ours: list[list[float]] = []
    imports: list[list[float]] = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imports.append([time.perf_counter() - began])
        ours.append([first_answer(folder)])
    own, bare = (statistics.median(seconds for (seconds,) in times) for times in (ours, imports))
    said(PART, f"start {own:.2f} s, imports {bare:.2f} s")
    yield ratio_line("`llsflow serve` to its first answered read", f'`python -c "{IMPORTS}"`', ours, imports, 3)


def first_answer(folder: Path) -> float:
    """Start the server, and return the seconds until it has answered a read."""
    port = server.free_port()
    asked = request("GET", "/v1beta/datasets/small")
    began = time.perf_counter()
    with (
        server.running((*server.LLSFLOW, "serve", f"server.port={port}"), port, folder, "start.log"),
        Wire(port) as wire,
    ):
        wire.ask(asked)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
