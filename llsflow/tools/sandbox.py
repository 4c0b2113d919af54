"""A bubblewrap sandbox for Python: no network, no file of this machine but the interpreter's, limits on the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llsflow.errors import ConfigError, Mistake, UnavailableError
from llsflow.home import home
from llsflow.tools.base import ToolError
from llsflow.tools.syscalls import seccomp_filter

DRIVER = Path(__file__).with_name("inside.py")
THREADS = 64
"""Most threads of all its processes."""
DISK_BYTES = 64 << 20
"""Of its work folder, which lies in memory."""
SHARED_BYTES = 16 << 20
FILES = 10_000
IMAGES = 4
"""Most images that come back from a run."""
IMAGE_BYTES = 1 << 20
"""Largest of them."""
ENDING_SECONDS = 5.0
"""Longest wait for a sandbox to end by itself before it is killed."""
TRYING_SECONDS = 30.0
"""Longest wait for the first program in it."""
OLDEST = (0, 8)
"""The first version of bubblewrap that can forbid user namespaces within the sandbox."""

SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/share")
LINKED = ("/bin", "/lib", "/lib32", "/lib64")
"""Links into /usr, or folders of old."""
FINDING = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts")
"""Where shared libraries and fonts are found."""

ENVIRONMENT = {
    **{"PATH": "/usr/bin:/bin", "HOME": "/sandbox", "TMPDIR": "/sandbox", "LANG": "C.UTF-8"},
    # a thread for each core would use the limits up
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    **{"MPLBACKEND": "Agg", "MPLCONFIGDIR": "/sandbox/.matplotlib"},
}

ASK = "import json, site, sys; print(json.dumps([sys.executable, sys.base_prefix, site.getsitepackages()]))"
"""What an interpreter is asked of itself."""

APART = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
    *("--disable-userns", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
    *("--as-pid-1", "--new-session", "--die-with-parent", "--clearenv"),
)

HOW = (
    "user namespaces must be allowed: sysctl kernel.unprivileged_userns_clone=1 on Debian, "
    "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap on Ubuntu, "
    "and in a container a seccomp profile that lets it unshare"
)


class _Image(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=100)]
    data: Annotated[str, Field(max_length=IMAGE_BYTES * 4 // 3 + 4)]


class Ran(BaseModel):
    """What came of a run, as the sandbox tells it; whoever reads it trusts nothing but its form."""

    model_config = ConfigDict(extra="forbid", strict=True)

    output: str
    """What it printed, standard error too."""
    more: bool
    """There was more of it."""
    status: Annotated[int, Field(ge=-128, le=255)]
    """The exit status, or minus the signal that ended it."""
    over: Literal["", "output", "threads", "cpu", "memory", "files"]
    """The limit that it was ended for."""
    images: Annotated[list[_Image], Field(max_length=IMAGES)]
    left_out: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=IMAGES)]
    """Names of images that are too large, or too many."""


@dataclass(frozen=True)
class _Interpreter:
    executable: Path
    """Without links."""
    folders: tuple[Path, ...]
    """Where its libraries and packages lie."""
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What one run may use."""

    cpu_seconds: int
    memory_bytes: int
    output_bytes: int


class Sandbox:
    """Runs programs, each in a sandbox of its own; used in one event loop."""

    def __init__(self, python: str | None, limits: Limits, at_once: int) -> None:
        self._python = python
        self._limits = limits
        self._free = asyncio.Semaphore(at_once)
        self._ready: tuple[str, _Interpreter] | None = None

    async def ready(self) -> None:
        """Try it, once.

        Raises:
            ConfigError: the interpreter is none.
            UnavailableError: this machine has no sandbox, why, and what helps.
        """
        if self._ready is None:
            program = await _bubblewrap()
            interpreter = await _interpreter(self._python)
            try:
                async with asyncio.timeout(TRYING_SECONDS):
                    ran = await self._run((program, interpreter), "6 * 7")
            except (ToolError, TimeoutError) as error:
                raise UnavailableError(f"no sandbox can be made here: {error or 'it does not start'}; {HOW}") from None
            if ran.output != "42\n":
                raise UnavailableError(f"{interpreter.executable} does not run in the sandbox: {ran.output[-500:]}")
            self._ready = program, interpreter

    async def run(self, code: str) -> Ran:
        """Run a program; nothing of it is left when this returns, or is cancelled.

        Raises:
            ConfigError, UnavailableError: as `ready`.
            ToolError: the sandbox failed.
        """
        await self.ready()
        assert self._ready is not None  # noqa: S101 - for mypy
        async with self._free:
            return await self._run(self._ready, code)

    async def _run(self, ready: tuple[str, _Interpreter], code: str) -> Ran:
        program, interpreter = ready
        request = {**vars(self._limits), "code": code, "packages": interpreter.packages, "threads": THREADS}
        request |= {"disk_bytes": DISK_BYTES, "files": FILES, "images": IMAGES, "image_bytes": IMAGE_BYTES}
        # every character of the output may be six in JSON
        most = 6 * self._limits.output_bytes + IMAGES * IMAGE_BYTES * 4 // 3 + 100_000
        process = _start(program, interpreter)
        try:
            asking = _write(process.stdin, json.dumps(request).encode() + b"\n")
            told, error, _ = await asyncio.gather(
                _at_most(process.stdout, most), _at_most(process.stderr, 10_000), asking
            )
        finally:
            await _end(process)
        try:
            return Ran.model_validate_json(told)
        except ValidationError:
            why = error.decode("utf-8", "replace").strip().splitlines()
            raise ToolError(f"the sandbox failed: {why[-1] if why else 'it ended without an answer'}") from None


def _start(program: str, interpreter: _Interpreter) -> subprocess.Popen[bytes]:
    """Start a sandbox; not by the event loop: uvloop's child runs Python before it becomes the program.

    That child is a copy of one thread among many, and what others held stays locked or half done in it.
    """
    allowed = seccomp_filter()
    reading = -1
    if allowed is not None:
        reading, writing = os.pipe()
        os.write(writing, allowed)  # fits into the pipe
        os.close(writing)
    try:
        return subprocess.Popen(
            [
                *(program, *APART, *_mounts(interpreter), "--chdir", ENVIRONMENT["HOME"]),
                *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
                *(("--seccomp", str(reading)) if allowed is not None else ()),
                *("--", str(interpreter.executable), "-I", "-S", "-B", "/driver.py"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={},
            cwd="/",
            pass_fds=(reading,) if allowed is not None else (),
        )
    finally:
        if allowed is not None:
            os.close(reading)


async def _write(file: IO[bytes] | None, content: bytes) -> None:
    """Write to a pipe, which stays open; one that nobody reads any longer takes nothing."""
    assert file is not None  # noqa: S101 - for mypy
    loop, number, free = asyncio.get_running_loop(), file.fileno(), asyncio.Event()
    os.set_blocking(number, False)
    loop.add_writer(number, free.set)
    try:
        while content:
            await free.wait()
            free.clear()
            with contextlib.suppress(BlockingIOError):
                content = content[os.write(number, content) :]
    except BrokenPipeError:
        pass
    finally:
        loop.remove_writer(number)


async def _at_most(file: IO[bytes] | None, most: int) -> bytes:
    """Return what a pipe has until it ends, or until it has more than that."""
    assert file is not None  # noqa: S101 - for mypy
    loop, number, there = asyncio.get_running_loop(), file.fileno(), asyncio.Event()
    os.set_blocking(number, False)
    loop.add_reader(number, there.set)
    content = bytearray()
    try:
        while len(content) <= most:
            await there.wait()
            there.clear()
            with contextlib.suppress(BlockingIOError):
                piece = os.read(number, 65536)
                if not piece:
                    break
                content += piece
    finally:
        loop.remove_reader(number)
    return bytes(content)


async def _end(process: subprocess.Popen[bytes]) -> None:
    """End a sandbox: process 1 in it goes when its input does, and all others with it, before bubblewrap does."""
    with process:  # its pipes are closed, and it is waited for
        try:
            assert process.stdin  # noqa: S101 - for mypy
            process.stdin.close()
            await asyncio.to_thread(process.wait, ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        except BaseException:
            process.kill()
            raise


async def _bubblewrap() -> str:
    """Return the program.

    Raises:
        UnavailableError: there is none, or it is too old.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UnavailableError("code_interpreter needs bubblewrap, which is not installed: apt-get install bubblewrap")
    try:
        asked = await _asked(program, "--version")
    except OSError as error:  # no process or memory is left for it, for example
        raise UnavailableError(f"{program} cannot be started: {error.strerror or error}") from None
    if asked.returncode:
        why = asked.stderr.strip() or "it says nothing"
        raise UnavailableError(f"{program} is no bubblewrap: --version ends with {asked.returncode} ({why})")
    found = re.search(r"(\d+)\.(\d+)", asked.stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        oldest, said = ".".join(map(str, OLDEST)), asked.stdout.strip() or "no bubblewrap"
        raise UnavailableError(f"{program} is {said}, needed: {oldest} or newer")
    return program


async def _interpreter(python: str | None) -> _Interpreter:
    """Return what a Python is made of.

    Raises:
        ConfigError: it is none.
    """
    try:
        asked = await _asked(python or sys.executable, "-I", "-c", ASK)
        executable, prefix, packages = json.loads(asked.stdout)
    except (OSError, ValueError):
        message = f"{python!r} is no Python: write the path of an interpreter, or null for {sys.executable}"
        raise ConfigError([Mistake("provider.python", message)]) from None
    libraries = (Path(prefix) / name for name in ("lib", "lib32", "lib64"))
    folders = (folder for folder in (*libraries, *map(Path, packages)) if folder.is_dir())
    return _Interpreter(Path(executable).resolve(), tuple(folders), tuple(packages))


async def _asked(*command: str) -> subprocess.CompletedProcess[str]:
    """Return what a program of this machine says.

    Raises:
        OSError: it cannot be started, or does not end.
    """
    # in a thread: uvloop runs Python in the child before it becomes the program, next to threads that hold locks
    asking = partial(subprocess.run, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRYING_SECONDS)
    try:
        return await asyncio.to_thread(asking, command, encoding="utf-8", errors="replace", check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"it does not end within {TRYING_SECONDS:g} s") from None


def _mounts(interpreter: _Interpreter) -> list[str]:
    """Return the sandbox's files: what Python needs, read-only, and its own folders, of limited size."""
    shown = {*interpreter.folders, interpreter.executable, *(Path(name) for name in SYSTEM if Path(name).is_dir())}
    words: list[str] = ["--size", str(DISK_BYTES), "--perms", "0700", "--tmpfs", ENVIRONMENT["HOME"]]
    if not any(path.is_relative_to("/tmp") for path in shown):  # noqa: S108 - the sandbox's own
        words += ["--symlink", ENVIRONMENT["HOME"], "/tmp"]  # noqa: S108 - programs write there by habit
    for name in LINKED:
        if Path(name).is_symlink():
            words += ["--symlink", str(Path(name).readlink()), name]
        elif Path(name).is_dir():
            shown.add(Path(name))
    hidden = _hidden(shown)
    # what lies deeper comes later: a hidden folder covers what is shown around it, never what is shown within it
    for path in sorted({*shown, *hidden}, key=lambda path: len(path.parts)):
        words += ["--tmpfs", str(path)] if path in hidden else ["--ro-bind", str(path), str(path)]
    words += [word for path in hidden for word in ("--remount-ro", str(path))]
    words += [word for path in FINDING for word in ("--ro-bind-try", path, path)]
    # read-only: root's processes could set the kernel up by what bubblewrap leaves writable of it
    words += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    words += ["--size", str(SHARED_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108 - the sandbox's own
    return [*words, "--remount-ro", "/dev", "--ro-bind", str(DRIVER), "/driver.py", "--remount-ro", "/"]


def _hidden(shown: set[Path]) -> set[Path]:
    """Return the folders of the user and of this server that lie in what is shown, as in a home below /usr/lib."""
    user = Path(os.path.expanduser("~"))  # noqa: PTH111 - that of Path raises where there is none
    hidden = set()
    for private in {user.resolve(), home(), Path.cwd()}:
        for around in shown:
            real = around.resolve()
            if real in private.parents and private.is_dir():
                hidden.add(around / private.relative_to(real))
    return hidden
