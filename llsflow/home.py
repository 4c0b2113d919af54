"""LLSFLOW_HOME: where run state lives, and how it is written so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llsflow.errors import LlsflowError, Stopped, StorageError

WORTH_CACHING_BYTES = 1 << 20
"""Below this a file is hashed faster than its remembered digest is looked up."""


def home() -> Path:
    """Return the folder of all run state: LLSFLOW_HOME, or ./outputs."""
    return Path(os.environ.get("LLSFLOW_HOME") or "outputs").expanduser().resolve()


def of_step(relative: str) -> Path | None:
    """Return a folder that a step made: under steps/ once the step is done, under work/ before; None: in neither.

    `relative` begins with the step's own folder; it never leads out of the home.
    """
    roots = [home() / "steps", home() / "work"]
    for root in (*roots, roots[0]):  # it may have moved between the two looks
        folder = root / relative
        if folder.is_dir() and folder.resolve().is_relative_to(root):
            return folder
    return None


def moved(folder: Path) -> Path | None:
    """Return where a folder of a step's is by now, when its step is done or runs anew; None: it is no such folder."""
    roots = (home() / "work", home() / "steps")
    relative = next((folder.relative_to(root) for root in roots if folder.is_relative_to(root)), None)
    return of_step(relative.as_posix()) if relative is not None and relative.parts else None


def ensure_writable() -> Path:
    """Return LLSFLOW_HOME, made and tried with a real write.

    Raises:
        StorageError: it cannot be made or written.
    """
    folder = home()
    probe = folder / f".probe-{os.getpid()}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    return folder


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one sentence each."""
    try:
        yield
    except LlsflowError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and _tells_of_full(error, folder)):
            why = "the disk is full: free some space"
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = "it is read-only for this user: change its permissions"
        elif number in (errno.ENOTDIR, errno.EEXIST):
            why = "a part of this path is a file, not a folder"
        else:
            raise
        raise StorageError(
            f"cannot write to {folder}: {why}, or set LLSFLOW_HOME to a folder that can be written"
        ) from error


def _tells_of_full(error: Exception, folder: Path) -> bool:
    """Return whether the error is a library's own for a full disk: by its words, or as a megabyte no longer fits."""
    if os.strerror(errno.ENOSPC) in str(error):
        return True
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    probe = existing / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"\0" * (1 << 20))
    except OSError as refusal:
        return refusal.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return False


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part: aside, sync, rename."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, aside and renamed."""
    write_aside(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any | None:
    """Return the parsed file, or None when it is absent or not JSON (a cut-off write of another tool)."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


@contextlib.contextmanager
def locked(name: str, waiting_for: str = "another run", stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the lock `name` under LLSFLOW_HOME against every other process.

    Raises:
        Stopped: `stop` said so while another process held the lock.
        StorageError: the lock's file cannot be written.
    """
    from filelock import FileLock, Timeout

    path = home() / "locks" / f"{name}.lock"
    with storage_errors(home()):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path))
        told = False
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                if stop():
                    raise Stopped(f"stopped while waiting for {waiting_for}") from None
                if not told:
                    logging.getLogger("llsflow").info("waiting for %s (it holds %s)", waiting_for, path)
                    told = True
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def alone(name: str) -> Iterator[bool]:
    """Yield whether no other process is within the same block, without waiting for it."""
    from filelock import FileLock, Timeout

    path = home() / "locks" / f"{name}.lock"
    with storage_errors(home()):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(path: Path) -> str:
    """Return the sha256 (hex) of a module's source, or of its whole folder where that is a package."""
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    found = hashlib.sha256()
    for file in files:
        found.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def cached_file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file, remembered under LLSFLOW_HOME by path, size and times."""
    stat = path.stat()
    if stat.st_size < WORTH_CACHING_BYTES:
        return file_digest(path)
    # the time of change too: a copy that keeps its time of modification must not pass for the file it replaced
    known = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    entry = home() / "cache" / "digests" / f"{digest(known[0])}.json"
    cached = read_json(entry)
    if isinstance(cached, dict) and cached.get("file") == known:
        return str(cached["sha256"])
    found = file_digest(path)
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        write_json(entry, {"file": known, "sha256": found})
    return found
