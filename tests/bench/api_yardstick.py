"""The bare FastAPI server beside which ours is measured: 100 rows from memory, and rows written and fsynced.

python tests/bench/api_yardstick.py PORT FIRST FILE, where FIRST is the first row of the page.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
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
    async def append(request: Request) -> int:
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
