"""The bare FastAPI server beside which ours is measured: 100 rows from memory, and rows written and fsynced.

    python tests/bench/api_yardstick.py PORT FIRST FILE

FIRST is the first row of the page, FILE what rows are written to. Each route is there twice: as one writes it, and
with everything left out that can be: the thread, the check of what goes out, the reading of what came in.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from rows import PAGE_ROWS, row


def main() -> None:
    """Serve until SIGTERM."""
    app = FastAPI()
    port, first, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    rows = [row(number) for number in range(first, first + PAGE_ROWS)]
    # unbuffered: what is written is with the system before it is synced
    file = open(path, "ab", buffering=0)  # noqa: PTH123, SIM115 - it stays open

    @app.get("/page")
    def page():  # type: ignore[no-untyped-def]
        return rows

    @app.get("/declared-page")
    async def declared_page() -> list[dict[str, Any]]:
        return rows

    @app.post("/append")
    def append(rows: Annotated[list[dict[str, Any]], Body(embed=True)]) -> int:
        data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        file.write(data)
        os.fsync(file.fileno())
        return len(data)

    @app.post("/append-body")
    async def append_body(request: Request) -> int:
        data = await request.body()
        json.loads(data)
        file.write(data)
        os.fsync(file.fileno())
        return len(data)

    # as `llsflow serve` has it: without the protocol's name, asyncio would leave Nagle's delay on
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
