"""Within the sandbox: runs code in a process of its own, watches it, and tells as one line of JSON what came of it.

It is process 1 there, which no process of the sandbox can end, stop or read, and with which all of them end. It runs
under any Python from 3.9, without any package: `llsflow.tools.sandbox` gives it one line of JSON, and then holds its
standard input open for as long as it wants an answer.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import ctypes
import json
import linecache
import os
import resource
import select
import signal
import stat
import sys
import time
import traceback
import types
from typing import Any

WORK = "/sandbox"  # in its memory
SHARED = "/dev/shm"  # noqa: S108 - as well
TICK_MS = 20
"""Between two looks at what runs."""
NAME = "<code>"
PR_SET_DUMPABLE = 4
IMAGES = (".png", ".jpg", ".jpeg")
PAGE = os.sysconf("SC_PAGE_SIZE")
CLOCK = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run what stands on standard input; return the code's own exit status, in its process."""
    request = json.loads(_line())
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # process 1 gets no signal that it does not handle
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _settle(writing, request)
        return _run(request["code"])
    os.close(writing)
    told = json.dumps(_watch(child, reading, request)).encode() + b"\n"
    while told:
        told = told[os.write(1, told) :]
    os._exit(0)


def _line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            os._exit(1)
        line += piece
    return bytes(line)


def _settle(writing: int, request: dict[str, Any]) -> None:
    """Make this process the code's: its streams, its limits and its packages."""
    import site

    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.closerange(3, 256)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    os.nice(10)
    for name, most in {
        "RLIMIT_CPU": request["cpu_seconds"] + 1,
        "RLIMIT_AS": request["memory_bytes"],
        "RLIMIT_NPROC": request["threads"],
        "RLIMIT_FSIZE": request["disk_bytes"],
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }.items():
        resource.setrlimit(getattr(resource, name), (most, most))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for folder in request["packages"]:
        site.addsitedir(folder)
    site.setquit()
    site.sethelper()


def _run(code: str) -> int:
    """Run the code as a file named `<code>`, and show the value of its last expression, as a prompt does."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"], sys.argv = module, [NAME]
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    try:
        tree = ast.parse(code, NAME)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, NAME, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - it is what the sandbox is for
        if isinstance(last, ast.Expr):
            value = compile(ast.Expression(last.value), NAME, "eval", dont_inherit=True)
            sys.displayhook(eval(value, module.__dict__))  # noqa: S307
    except SystemExit:
        raise
    except BaseException as error:
        traceback.print_exception(type(error), error, _of_the_code(error.__traceback__))
        return 1
    return 0


def _of_the_code(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Return a traceback from the code's first line on; None: the code did not begin."""
    while trace is not None and trace.tb_frame.f_code.co_filename != NAME:
        trace = trace.tb_next
    return trace


def _watch(child: int, reading: int, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the code said and left, once it ends or is over a limit; all that runs is ended by then."""
    output, why = bytearray(), ""
    status: int | None = None
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(reading, select.POLLIN)
    looked = time.monotonic()
    while status is None and not why:
        for place, _ in poll.poll(TICK_MS):
            if place == 0:  # nobody waits for an answer any more
                os._exit(1)
            piece = os.read(reading, 65536)
            output += piece
            if not piece:
                poll.unregister(reading)
        status = _reap(child, os.WNOHANG)
        if len(output) > request["output_bytes"]:
            why = "output"
        elif time.monotonic() - looked > TICK_MS / 1000:
            why, looked = _over(request), time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    rest = _reap(child, 0)
    if not why and status == -signal.SIGKILL and _seconds() > request["cpu_seconds"]:
        why = "cpu"  # the kernel's own limit came first
    while len(output) <= request["output_bytes"]:
        piece = os.read(reading, 65536)
        if not piece:
            break
        output += piece
    cut = output[: request["output_bytes"]].decode("utf-8", "replace")
    told = {"output": cut, "status": rest if status is None else status, "over": why}
    return {**told, "more": len(output) > request["output_bytes"], **_images(request)}


def _reap(child: int, options: int) -> int | None:
    """Collect processes that have ended; return the child's exit status, or minus its signal, if it is among them."""
    found = None
    while True:
        try:
            process, how = os.waitpid(-1, options)
        except ChildProcessError:
            return found
        if process == child:
            found = os.waitstatus_to_exitcode(how)
        if not process:
            return found


def _over(request: dict[str, Any]) -> str:
    """Return which limit all processes together are over.

    Limits of the kernel hold for each process, and that on their number never for root's. Source: proc(5).
    """
    threads = pages = 0
    seconds = _seconds()
    running = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208
    for name in running:
        try:
            with open("/proc/" + name + "/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            continue
        seconds += sum(map(int, fields[11:15])) / CLOCK
        threads += int(fields[17])
        pages += int(fields[21])
    if threads > request["threads"]:
        return "threads"
    if seconds > request["cpu_seconds"]:
        return "cpu"
    if pages * PAGE > request["memory_bytes"] and sum(map(_memory, running)) > request["memory_bytes"]:
        return "memory"
    disks = [os.statvfs(folder) for folder in (WORK, SHARED)]
    return "files" if sum(disk.f_files - disk.f_ffree for disk in disks) > request["files"] else ""


def _seconds() -> float:
    """Return the processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(process: str) -> int:
    """Return a process's memory in bytes, of what it shares its part, if it can be told."""
    for name, key, unit in (("smaps_rollup", b"Pss:", 1024), ("status", b"VmRSS:", 1024)):
        try:
            with open("/proc/" + process + "/" + name, "rb") as file:  # noqa: PTH123
                lines = [line.split() for line in file]
        except OSError:
            continue
        return sum(int(line[1]) for line in lines if line[0] == key) * unit
    return 0


def _images(request: dict[str, Any]) -> dict[str, Any]:
    """Return the images in the work folder, in the order they were written in, and the names of those too many."""
    images: list[dict[str, str]] = []
    left: list[str] = []
    found = [path for path in _files() if path.lower().endswith(IMAGES)]
    for path in sorted(found, key=lambda path: (os.lstat(path).st_mtime_ns, path)):
        content = _content(path, request["image_bytes"]) if len(images) < request["images"] else None
        name = os.path.relpath(path, WORK).encode("utf-8", "replace").decode()[:100]
        if content:
            images.append({"name": name, "data": base64.b64encode(content).decode()})
        elif len(left) < request["images"]:
            left.append(name)
    return {"images": images, "left_out": left}


def _files() -> list[str]:
    """Return paths of files in the work folder, hidden ones and other mounts left out."""
    device = os.lstat(WORK).st_dev
    paths: list[str] = []
    folders = [WORK]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.stat(follow_symlinks=False).st_dev == device:
                        (folders if entry.is_dir(follow_symlinks=False) else paths).append(entry.path)
        except OSError:  # a path too long, for one
            continue
    return paths


def _content(path: str, most: int) -> bytes | None:
    """Return what a file holds; None: it is no plain file, empty, or larger than `most` bytes."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            return None
        with os.fdopen(file, "rb", closefd=False) as reader:
            return reader.read(most) or None
    finally:
        os.close(file)


if __name__ == "__main__":
    sys.exit(main())
