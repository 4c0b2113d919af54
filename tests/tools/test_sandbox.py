"""The sandbox, from within: what it sees, what it reaches, what it may use, and what is left of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.patience import PATIENCE_SECONDS
from tests.tools.sandboxes import processes, run, said, sandbox, skip_without_sandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    skip_without_sandbox()


def test_no_file_of_this_machine_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = tmp_path / "house"
    (house / "outputs").mkdir(parents=True)
    secrets = [house / ".netrc", house / "outputs" / "llsflow.db"]
    for secret in secrets:
        secret.write_text("a secret")
    monkeypatch.setenv("HOME", str(house))
    monkeypatch.setenv("LLSFLOW_HOME", str(house / "outputs"))
    paths = [*map(str, secrets), str(ROOT / "pyproject.toml"), str(ROOT / "llsflow" / "home.py")]
    paths += ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/root/.bashrc", "/var/log", "/run", "/sys", "/home"]
    paths += [
        "/proc/1/root/etc/passwd",
        "/proc/self/cwd/../etc/passwd",
        "/oldroot",
        "/dev/kmsg",
        "/dev/vda",
        "/dev/mem",
    ]
    found = said(
        f"""
import os
for path in {paths!r}:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
        print(path)
    except (FileNotFoundError, PermissionError):
        pass
"""
    )
    assert found == ""


def test_the_environment_of_the_server_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-very-secret")
    found = said(
        """
import glob, os
print(os.environ)
for path in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline'):
    try: print(open(path).read())
    except PermissionError: pass
"""
    )
    assert "HOME" in found
    assert "sk-very-secret" not in found
    assert str(ROOT) not in found


def test_nothing_but_its_own_folders_can_be_written(tmp_path: Path) -> None:
    folders = ["/", "/usr", "/usr/lib", "/usr/bin", "/dev", "/etc", "/root", "/proc/self", sys.base_prefix]
    folders += [str(Path(pytest.__file__).parents[1]), str(Path(os.__file__).parent), str(tmp_path)]
    told = said(
        f"""
import json, os
open('here', 'w').write('x'), open('/dev/shm/here', 'w').write('x')
went = []
for folder in {folders!r}:
    try:
        open(folder + '/left_behind', 'w').write('x')
        went.append(folder)
    except OSError:
        pass
for path in ('/driver.py', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/self/oom_score_adj'):
    try:
        os.close(os.open(path, os.O_WRONLY))
        went.append(path)
    except OSError:
        pass
print(json.dumps(went))
"""
    )
    assert json.loads(told) == []
    assert not [folder for folder in folders if Path(folder, "left_behind").exists()]


def test_no_address_is_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind("\0llsflow-test")
        named.listen()
        port = server.getsockname()[1]
        told = said(
            f"""
import socket
def reach(family, address):
    with socket.socket(family) as there:
        there.settimeout(5)
        try:
            there.connect(address)
            print('reached', address)
        except OSError as error:
            print(error.errno)
reach(socket.AF_INET, ('127.0.0.1', {port}))
reach(socket.AF_INET6, ('::1', {port}))
reach(socket.AF_INET, ('192.0.2.1', 80))
reach(socket.AF_INET, ('169.254.169.254', 80))
reach(socket.AF_UNIX, '\\0llsflow-test')
for family in (socket.AF_VSOCK, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_ALG):
    try: socket.socket(family, socket.SOCK_RAW)
    except OSError as error: print(error.errno)
"""
        )
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    refused, nowhere, unsupported = 111, (101, 99), 97
    numbers = [int(line) for line in told.split()]
    assert numbers[0] == refused
    assert numbers[1] in (refused, *nowhere)
    assert all(number in nowhere for number in numbers[2:4])
    assert numbers[4:] == [refused, *[unsupported] * 4]


def test_no_process_of_this_machine_is_seen() -> None:
    told = said(
        f"""
import os
print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))
try: os.kill({os.getpid()}, 0); print('there')
except ProcessLookupError: print('not there')
print(os.getuid(), os.uname().nodename)
"""
    )
    assert told == "[1, 2]\nnot there\n1000 sandbox\n"


def test_the_kernel_is_asked_for_nothing_strange() -> None:
    """Numbers of calls: clone with a user namespace, unshare, memfd_create, shmget, ptrace, io_uring_setup."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    told = said(
        """
import ctypes, signal
c = ctypes.CDLL(None, use_errno=True)
for number, first in ((56, 0x10000000 | signal.SIGCHLD), (272, 0x10000000), (319, b'x'), (29, 0), (101, 16), (425, 1)):
    print(c.syscall(number, first, 1 if number == 101 else 0, 0, 0, 0), ctypes.get_errno())
"""
    )
    no_space, not_permitted = 28, 1
    assert told.split() == [word for error in (no_space, *[not_permitted] * 5) for word in ("-1", str(error))]
    assert run("import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)").status == -signal.SIGSYS


def test_the_process_that_watches_cannot_be_touched() -> None:
    told = said(
        """
import os, signal
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    os.kill(1, number)
for path in ('/proc/1/mem', '/proc/1/fd/0', '/proc/1/environ'):
    try: os.open(path, os.O_RDONLY); print(path)
    except PermissionError: pass
print('alive')
"""
    )
    assert told == "alive\n"


@pytest.mark.parametrize(
    ("code", "over"),
    [
        ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", {"threads", "cpu"}),
        ("while True: pass", {"cpu"}),
        ("import os\nfor _ in range(5): os.fork()\nwhile True: pass", {"cpu"}),
        ("while True: print('x' * 1000)", {"output"}),
        ("import os\nwhile True: os.write(2, bytes(1000))", {"output"}),
        ("n = 0\nwhile True:\n    open(str(n), 'w').close()\n    n += 1", {"files", "cpu"}),
        (
            # 16 processes of 64 MB each, which hold what they have
            "import os, time\nfor _ in range(4): os.fork()\nheld = b'x' * (64 << 20)\ntime.sleep(60)",
            {"memory"},
        ),
    ],
    ids=["forks", "processor", "processors", "output", "errors", "files", "memory of several"],
)
def test_a_program_that_takes_too_much_is_stopped(code: str, over: set[str]) -> None:
    ran = run(code, cpu_seconds=3)
    assert ran.over in over, ran
    assert len(ran.output) <= 10_000


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("held = []\nwhile True: held.append(bytearray(16 << 20))", "MemoryError"),
        ("while True: open('a', 'ab').write(bytes(1 << 20))", "OSError"),
        ("n = 0\nwhile True:\n    open('/dev/shm/' + str(n), 'wb').write(bytes(4 << 20))\n    n += 1", "OSError"),
        (
            "import threading\nhold = threading.Event()\n"
            "while True: threading.Thread(target=hold.wait, daemon=True).start()",
            "RuntimeError",
        ),
        ("held = []\nwhile True: held.append(open('/dev/null'))", "OSError"),
    ],
    ids=["memory", "disk", "shared memory", "threads", "files"],
)
def test_a_program_that_takes_too_much_reads_why(code: str, error: str) -> None:
    ran = run(code)
    assert ran.over == "threads" or (ran.status == 1 and f"\n{error}" in ran.output), ran


def test_a_program_that_hides_what_it_uses_is_stopped_too() -> None:
    """A child that is reaped takes its processor time with it; it counts all the same."""
    spend = "import os\nwhile True:\n    if not os.fork():\n        sum(range(3_000_000)); os._exit(0)\n    os.wait()"
    assert run(spend, cpu_seconds=1).over == "cpu"


def test_nothing_is_left_of_a_program_that_leaves_something_running() -> None:
    mark = "86399.25"
    told = said(
        f"""
import os, subprocess, time
started = subprocess.Popen(['/usr/bin/sleep', '{mark}'], start_new_session=True, stdout=-3, stderr=-3)
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execv('/usr/bin/sleep', ['sleep', '{mark}'])
    os._exit(0)
print('done')
"""
    )
    assert told == "done\n"
    assert processes(mark) == []


def test_nothing_is_left_of_a_program_that_is_cancelled() -> None:
    mark = "86399.5"
    code = f"import os\nfor _ in range(3): os.fork()\nos.execv('/usr/bin/sleep', ['sleep', '{mark}'])"

    async def talk() -> None:
        here = sandbox()
        before = set(psutil.Process().children(recursive=True))  # of other tests
        task = asyncio.create_task(here.run(code))
        while len(processes(mark)) < 8:
            await asyncio.sleep(0.01)
        started = [child for child in psutil.Process().children(recursive=True) if child not in before]
        assert len(started) >= 9
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [process for process in started if process.is_running()] == []
        assert processes(mark) == []

    asyncio.run(talk())


def test_a_bomb_that_is_cancelled_is_over() -> None:
    async def talk() -> None:
        here = sandbox(cpu_seconds=3600)
        await here.ready()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await here.run("while True: pass")

    before = set(psutil.Process().children(recursive=True))
    asyncio.run(talk())
    assert set(psutil.Process().children(recursive=True)) <= before


def test_nothing_is_left_when_the_server_is_killed() -> None:
    mark = "86399.75"
    program = (
        "import asyncio\nfrom tests.tools.sandboxes import sandbox\n"
        f"asyncio.run(sandbox().run(\"import os; os.execv('/usr/bin/sleep', ['sleep', '{mark}'])\"))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as server:
        ticker = threading.Event()
        while not (found := processes(mark)) and server.poll() is None:
            ticker.wait(0.01)
        server.kill()
    _, alive = psutil.wait_procs(found, timeout=PATIENCE_SECONDS)
    assert found
    assert not alive


def test_calls_do_not_see_each_other() -> None:
    write = "import os\nopen('mine', 'w').write('x')\nopen('/dev/shm/mine', 'w').write('x')\n"
    look = "print(os.listdir('.'), os.listdir('/dev/shm'), sum(name.isdigit() for name in os.listdir('/proc')))"

    async def talk() -> None:
        here = sandbox()
        one, two = await asyncio.gather(*(here.run(write + look) for _ in range(2)))
        three = await here.run("import os\n" + look)
        assert one.output == two.output == "['mine'] ['mine'] 2\n"
        assert three.output == "[] [] 2\n"

    asyncio.run(talk())


def test_no_more_run_at_once_than_may() -> None:
    code = "import time\nbegan = time.monotonic()\ntime.sleep(0.2)\nprint(began, time.monotonic())"

    async def talk() -> None:
        here = sandbox(at_once=1)
        rans = await asyncio.gather(*(here.run(code) for _ in range(3)))
        spans = sorted(tuple(map(float, ran.output.split())) for ran in rans)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))

    asyncio.run(talk())
