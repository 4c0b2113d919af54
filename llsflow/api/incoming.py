"""A request's bytes on their way in: in memory while they are few, in a file of LLSFLOW_HOME once they are many."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from fastapi import Request

from llsflow import home
from llsflow.api.errors import HTTPError

MANY_BYTES = 1 << 20
"""From here on a body is kept in a file, which a process aside can read without a copy through this one."""


class Incoming:
    """The bytes of one body."""

    def __init__(self) -> None:
        self.data = b""
        self.path: Path | None = None
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None
        self._size = 0

    async def receive(self, request: Request, most: int) -> None:
        """Take the whole body.

        Raises:
            HTTPError: it is larger than `most` bytes, or no JSON by its own account.
            StorageError: it cannot be kept.
        """
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdecimal() else 0
        if request.method == "GET" or not (announced or "transfer-encoding" in request.headers):
            return
        if announced > most:
            raise _too_large(most)
        _check_kind(request)
        async for part in request.stream():
            self._size += len(part)
            if self._size > most:
                raise _too_large(most)
            if self._size <= MANY_BYTES:
                self._parts.append(part)
            else:
                with home.storage_errors(home.home()):
                    self._write(part)
        if self._file is not None:
            with home.storage_errors(home.home()):
                self._file.close()
        self.data = b"".join(self._parts)

    def discard(self) -> None:
        """Remove the file, if there is one."""
        if self._file is not None and self.path is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def _write(self, part: bytes) -> None:
        if self._file is None:
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=folder)
            self.path, self._file = Path(name), os.fdopen(number, "wb")
            self._file.writelines(self._parts)
            self._parts = []
        self._file.write(part)


def sweep() -> None:
    """Remove what a killed server was receiving."""
    shutil.rmtree(_folder(), ignore_errors=True)


def _folder() -> Path:
    return home.home() / "incoming"


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        found = f"found {kind[:100]!r}" if kind else "none is given"
        raise HTTPError(415, f"Content-Type: {found}, allowed: application/json")
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise HTTPError(415, f"Content-Encoding: found {coding[:100]!r}, allowed: none")


def _too_large(most: int) -> HTTPError:
    return HTTPError(413, f"the body is larger than {most:,} bytes, the most that is taken: send less at a time")
