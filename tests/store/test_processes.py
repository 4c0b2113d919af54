"""Many writers at once, and writers that are killed: what was acknowledged is there, whole and in order."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import pytest

from llsflow.store import EMPTY, Batch, Store, chain, decode_row

WRITER = """
import sys, threading
from llsflow.store import *
url, process = sys.argv[1], sys.argv[2]
store = Store.open(url)
print("ready", flush=True)
input()
def write(thread):
    for turn in range(20):
        rows = [encode_row({"writer": f"{process}.{thread}", "turn": turn, "row": row}) for row in range(5)]
        store.datasets.append("d", Batch(rows, characters=7, turns=5))
threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
store.close()
print("done", flush=True)
"""

APPENDER = """
import sys
from llsflow.store import *
store = Store.open(sys.argv[1])
turn = 0
while True:
    store.datasets.append("d", Batch([encode_row({"turn": turn, "row": row, "x": "x" * 900}) for row in range(50)]))
    print(turn, flush=True)
    turn += 1
"""


@pytest.fixture
def empty(store: Store) -> Store:
    """A store with the empty data set d."""
    with store.datasets.import_rows() as importing:
        importing.publish("d", "p", {}, {}, "llsflow")
    return store


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def test_sixteen_writers_lose_nothing(empty: Store, url: str) -> None:
    processes = [start(WRITER, url, str(index)) for index in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seen = 0
    while seen < 1600 and any(process.poll() is None for process in processes):
        page = empty.datasets.page("d", 0, 5000)  # a reader is never refused, and sees whole appends
        assert len(page.lines) == page.total
        assert page.total % 5 == 0
        assert page.total >= seen
        seen = page.total
    for process in processes:
        out, errors = process.communicate()
        assert (process.returncode, out) == (0, "done\n"), errors
    lines = [*empty.datasets.read("d")]
    turns = defaultdict(list)
    for start_row in range(0, len(lines), 5):
        rows = [decode_row(line) for line in lines[start_row : start_row + 5]]
        assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
        assert len({(row["writer"], row["turn"]) for row in rows}) == 1
        turns[rows[0]["writer"]].append(rows[0]["turn"])
    assert len(turns) == 16
    assert all(found == list(range(20)) for found in turns.values())
    found = empty.datasets.get("d")
    assert found is not None
    assert (found.num_rows, found.characters, found.turns) == (1600, 16 * 20 * 7, 1600)
    assert found.digest == chain(EMPTY, lines)


@pytest.mark.parametrize("acknowledged", [0, 7, 40])
def test_a_killed_appender_loses_nothing_it_was_told(empty: Store, url: str, acknowledged: int) -> None:
    with start(APPENDER, url) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < acknowledged:
            pass
        process.kill()
        told = [int(line) for line in process.stdout.read().split("\n")[:-1]]
    last = told[-1] if told else acknowledged
    empty.close()
    with Store.open(url) as store:
        lines = [*store.datasets.read("d")]
        rows = [decode_row(line) for line in lines]
        assert [(row["turn"], row["row"]) for row in rows] == [divmod(i, 50) for i in range(len(rows))]
        assert len(rows) in (50 * (last + 1), 50 * (last + 2))  # one may be done and not yet told
        found = store.datasets.append("d", Batch(lines[:1]))
        assert found.digest == chain(EMPTY, [*lines, lines[0]])
