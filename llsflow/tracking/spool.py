"""What the store could not take: one JSON line per operation, kept on disk until it can."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llsflow.home import digest, home, write_aside

Operation = dict[str, Any]
"""One write to the store as plain JSON: `op` names it, the rest are its arguments."""


def folder(uri: str) -> Path:
    """Return the spool folder of one store: what was meant for one never goes to another."""
    return home() / "mlflow" / "spool" / digest(uri)[:12]


def leftovers(uri: str) -> Iterator[Spool]:
    """Yield, locked, the spools that ended processes left behind; the caller closes each."""
    for path in sorted(folder(uri).glob("*.jsonl")):
        spool = Spool(uri, path.stem)
        if spool.try_lock():
            yield spool


class Spool:
    """The operations of one run that wait for the store, in order."""

    def __init__(self, uri: str, ref: str) -> None:
        self.ref = ref
        self.path = folder(uri) / f"{ref}.jsonl"
        self.files = folder(uri) / f"{ref}.files"
        """Copies of the files that wait."""
        self._lock = FileLock(str(self.path) + ".lock", timeout=0)
        self._memory: list[Operation] = []
        """What could not even be written here: kept for this process."""

    def try_lock(self) -> bool:
        """Take the spool against other processes; False while another one holds it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except (Timeout, OSError):
            return False
        return True

    def close(self) -> None:
        """Let the spool go."""
        if self._lock.is_locked:
            if not self.path.exists():
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def __bool__(self) -> bool:
        return bool(self._memory) or self.path.exists()

    def append(self, operation: Operation) -> None:
        """Keep one operation: on disk, or in memory while the disk refuses too."""
        if not self._lock.is_locked:
            self.try_lock()
        if operation["op"] == "file":
            operation = self._with_copy(operation)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(operation) + "\n")
        except OSError:
            self._memory.append(operation)

    def _with_copy(self, operation: Operation) -> Operation:
        # a step's folder is renamed when the step is done: the file will not be where it was
        source = Path(operation["file"])
        copy = self.files / uuid.uuid4().hex / source.name
        try:
            copy.parent.mkdir(parents=True)
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copyfile(source, copy)
        except OSError:
            return operation
        return {**operation, "file": str(copy)}

    def read(self) -> list[Operation]:
        """Return every operation in order; a last line that a crash cut off is dropped."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        operations: list[Operation] = []
        for line in lines:
            try:
                operations.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return operations + self._memory

    def replace(self, operations: list[Operation]) -> None:
        """Keep only these operations."""
        try:
            if operations:
                write_aside(self.path, "".join(json.dumps(operation) + "\n" for operation in operations))
            else:
                self.path.unlink(missing_ok=True)
                shutil.rmtree(self.files, ignore_errors=True)
            self._memory = []
        except OSError:
            # the file still holds what was there: writing it again changes nothing in the store
            self._memory = operations if not self.path.exists() else []
