"""Keeps a server busy until it is ended: `python tests/bench/api_load.py PORT read ROWS` or `… register FILE NAME`.

It says `begun` once the server works on it, so that nothing is measured before; `register` ends with its data set.
"""

from __future__ import annotations

import sys
import threading

from wire import Wire, request

PAGE_ROWS = 10_000


def main() -> None:
    """Load the server."""
    port, what = int(sys.argv[1]), sys.argv[2]
    with Wire(port) as wire:
        if what == "read":
            read(wire, int(sys.argv[3]))
        else:
            source = {"type": "uri", "uri": sys.argv[3]}
            body = {"dataset_id": sys.argv[4], "purpose": "eval/question-answer", "source": source}
            threading.Timer(0.05, lambda: print("begun", flush=True)).start()
            wire.json("POST", "/v1beta/datasets", body)


def read(wire: Wire, rows: int) -> None:
    """Read the large set by pages, again and again."""
    path = f"/v1beta/datasetio/iterrows/large?limit={PAGE_ROWS}&start_index="
    print("begun", flush=True)
    while True:
        for first in range(0, rows, PAGE_ROWS):
            wire.ask(request("GET", f"{path}{first}"))


if __name__ == "__main__":
    main()
