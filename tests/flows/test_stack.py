"""The local Prefect server: one for each home, whoever starts it, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.processes import started_at
from flows.stack import LocalPrefect
from llsflow.errors import Stopped, StorageError, UnavailableError
from llsflow.home import write_json
from tests.flows.flow_program import wait_for
from tests.http_server import Handler, serve
from tests.patience import PATIENCE_SECONDS

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}


class _AlwaysHealthy(Handler):
    """A Prefect server of somebody else, as far as its health can tell."""

    def do_GET(self) -> None:
        body = b"true" if self.path.endswith("/health") else b'{"home": "/somewhere/else"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def listening_addresses(port: int) -> set[str]:
    """Return the addresses (hex, as the kernel tells them) on which something listens at the port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, hexport = local.rpartition(":")
            if state == "0A" and int(hexport, 16) == port:
                found.add(address)
    return found


def test_two_processes_at_once_on_a_fresh_home_share_one_server(shared_server: Any, served: Path) -> None:
    first, second = shared_server.urls
    assert first == second
    status = LocalPrefect().status()
    assert (status.url, status.local, status.healthy) == (first, True, True)
    assert processes_of(served) == [status.pid]


def processes_of(home: Path) -> list[int]:
    """Return the servers of a home, as the kernel knows them."""
    needle = f"PREFECT_HOME={home / 'prefect'}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if needle in variables and b"server" in words and started_at(int(folder.name)):
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks the Linux kernel who listens")
def test_the_server_is_heard_on_this_machine_only(shared_server: Any) -> None:
    port = int(shared_server.urls[0].split(":")[2].split("/")[0])
    assert listening_addresses(port) == {"0100007F"}


def test_the_server_keeps_to_its_home_and_tells_nobody(shared_server: Any, served: Path) -> None:
    settings = httpx.get(f"{shared_server.urls[0]}/admin/settings").json()
    assert settings["home"] == str(served / "prefect")
    assert settings["server"]["analytics_enabled"] is False
    assert settings["telemetry"]["enable_resource_metrics"] is False
    assert settings["cloud"]["enable_orchestration_telemetry"] is False
    assert settings["server"]["ui"]["show_promotional_content"] is False
    assert (served / "prefect" / "prefect.db").exists()
    pid = LocalPrefect().status().pid
    assert b"DO_NOT_TRACK=true" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_the_page_itself_is_served(shared_server: Any) -> None:
    page = httpx.get(shared_server.urls[0].removesuffix("/api"), follow_redirects=True)
    assert page.status_code == 200
    assert "<title>Prefect" in page.text


def test_no_telemetry_variable_is_left_unset(served: Path) -> None:
    environment = LocalPrefect().environment()
    assert {name: environment[name] for name in QUIET} == QUIET


def test_the_users_files_and_profile_do_not_hijack_a_run(shared_server: Any, served: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "PREFECT_API_URL=http://hijacked/api\nPREFECT_API_KEY=secret\nPREFECT_HOME=/hijacked\n"
        "PREFECT_PROFILES_PATH=/hijacked/profiles.toml\nPREFECT_LOGGING_LEVEL=DEBUG\n"
        "PREFECT_SERVER_ANALYTICS_ENABLED=true\nPREFECT_SERVER_EPHEMERAL_ENABLED=true\n"
    )
    (tmp_path / "prefect.toml").write_text('[api]\nurl = "http://hijacked/api"\nauth_string = "a:b"\n')
    script = """
import json, logging, sys
from flows.runner import PrefectRunner
runner = PrefectRunner()
runner.start()
from prefect import flow
from prefect.settings import get_current_settings
settings = get_current_settings()
key = settings.api.key
auth = settings.api.auth_string
json.dump({
    "url": settings.api.url, "home": str(settings.home), "profiles": str(settings.profiles_path),
    "key": key.get_secret_value() if key else "", "auth": auth.get_secret_value() if auth else "",
    "level": settings.logging.level, "analytics": settings.server.analytics_enabled,
    "ephemeral": settings.server.ephemeral.enabled, "root_handlers": len(logging.getLogger().handlers),
}, sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {
        "url": shared_server.urls[0],
        "home": str(served / "prefect"),
        "profiles": str(served / "prefect" / "profiles.toml"),
        "key": "",
        "auth": "",
        "level": "INFO",
        "analytics": False,
        "ephemeral": False,
        "root_handlers": 0,
    }
    assert done.stderr == ""
    assert not (tmp_path / ".prefect").exists()


def test_starting_is_light_and_quick_to_import() -> None:
    heavy = "prefect torch transformers lightning mlflow pandas matplotlib httpx sqlalchemy"
    script = f"import sys, flows.runner; print([name for name in {heavy.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_proxy_does_not_hide_the_local_server(
    shared_server: Any, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intranet")
    prefect = LocalPrefect()
    assert prefect.wait(PATIENCE_SECONDS) == shared_server.urls[0]
    environment = prefect.environment()
    assert environment["NO_PROXY"].split(",") == ["intranet", "127.0.0.1", "localhost"]


def test_a_server_of_the_users_keeps_the_users_key(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("HOME", "/home/somebody")
    environment = LocalPrefect().environment()
    assert environment["PREFECT_API_URL"] == "http://elsewhere/api"
    assert environment["PREFECT_PROFILES_PATH"] == "/home/somebody/.prefect/profiles.toml"
    assert not {"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "NO_PROXY"} & set(environment)
    monkeypatch.setenv("PREFECT_HOME", "/home/somebody/prefect")
    assert LocalPrefect().environment()["PREFECT_PROFILES_PATH"] == "/home/somebody/prefect/profiles.toml"


def test_what_we_set_ourselves_is_not_the_users_wish(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LocalPrefect().environment().items():
        monkeypatch.setenv(name, value)
    assert LocalPrefect().external is None
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    assert LocalPrefect().external == "http://elsewhere/api"
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert LocalPrefect().external is None


def test_waiting_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    prefect = LocalPrefect()
    with serve(_AlwaysHealthy) as port:
        record_of(tmp_path, port, os.getpid(), started_at(os.getpid()) or "")
        with pytest.raises(Stopped):
            prefect.wait(stopping=lambda: True)


def record_of(home: Path, port: int, pid: int, started: str, log_begin: int = 0) -> None:
    """Write what a home knows of its server."""
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    write_json(
        home / "prefect" / "server.json",
        {"pid": pid, "port": port, "url": f"http://127.0.0.1:{port}", "started": started, "log_begin": log_begin},
    )


def test_a_healthy_server_of_somebody_else_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process lives (this one), its port answers, but it says that its home is elsewhere."""
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    prefect = LocalPrefect()
    with serve(_AlwaysHealthy) as port:
        record_of(tmp_path, port, os.getpid(), started_at(os.getpid()) or "")
        with pytest.raises(UnavailableError, match=r"did not answer within 0 seconds; see .*server\.log"):
            prefect.wait(0.3)


LOST_PORT = (
    "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 4200): address already in use\n"
    + "  File prefect, line 1\n" * 200
    + "AssertionError: Reactive triggers not started\n\nERROR:    Application shutdown failed. Exiting.\n"
)
"""How a Prefect server ends whose port another took: the reason stands first, and much after it."""


@pytest.mark.parametrize(("begin", "starts"), [(0, 2), (len(LOST_PORT), 0)])
def test_a_port_that_was_lost_is_known_from_this_servers_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int, starts: int
) -> None:
    """A server that ends for another reason is not started again because an earlier one lost its port."""
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    record_of(tmp_path, 4200, os.getpid(), "another boot:1", log_begin=begin)
    prefect = LocalPrefect()
    prefect.log_file.write_text(LOST_PORT)
    started: list[bool] = []

    def start(*, die_with_parent: bool) -> None:
        started.append(die_with_parent)

    monkeypatch.setattr(prefect, "start", start)
    with pytest.raises(UnavailableError, match=r"ended while it started: ERROR: {4}Application shutdown failed"):
        prefect.wait()
    assert len(started) == starts


def test_stopping_never_ends_a_process_that_only_has_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        record_of(tmp_path, 4200, other.pid, "another boot:1")
        assert LocalPrefect().stop() is False
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "port": 2, "url": "", "x": 1}'])
def test_a_spoilt_record_is_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.json").write_text(content)
    assert LocalPrefect().status().url is None
    assert LocalPrefect().stop() is False


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect").write_text("a file where the folder should be")
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path))
    with pytest.raises(StorageError, match="a part of this path is a file"):
        LocalPrefect().start()


def test_a_dead_server_whose_port_is_anothers_is_replaced_and_stop_leaves_nothing(
    new_home: Callable[[str], Path],
) -> None:
    home = new_home("home with a space, a $dollar and ünïcode")
    with serve(_AlwaysHealthy) as port:
        record_of(home, port, 2**22 + 1, "a boot:1")
        prefect = LocalPrefect(port)
        prefect.start()
        url = prefect.wait()
        assert f":{port}/" not in url
        assert httpx.get(f"{url}/health").json() is True
    status = prefect.status()
    assert status.pid is not None
    assert status.healthy
    prefect.start()
    assert prefect.status().pid == status.pid, "started twice is started once"

    assert prefect.stop() is True
    assert started_at(status.pid) is None
    assert processes_of(home) == []
    assert not (home / "prefect" / "server.json").exists()
    assert prefect.status().url is None
    assert prefect.stop() is False


@pytest.mark.slow
def test_a_port_taken_while_the_server_boots_costs_another_start(new_home: Callable[[str], Path]) -> None:
    new_home("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prefect = LocalPrefect(port)
    prefect.start()
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", port))
        thief.listen()
        url = prefect.wait()
    assert f":{port}/" not in url
    assert prefect.status().healthy


@pytest.mark.slow
def test_a_server_that_cannot_start_is_one_sentence_with_its_log(new_home: Callable[[str], Path]) -> None:
    home = new_home("home")
    (home / "prefect" / "prefect.db").write_text("this is no database" * 1000)
    prefect = LocalPrefect()
    prefect.start()
    with pytest.raises(UnavailableError) as raised:
        prefect.wait()
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("the local Prefect server ended while it started: ")
    assert str(home / "prefect" / "server.log") in message
    assert prefect.status().pid is None


def test_a_process_outlives_the_one_that_started_it(served: Path, shared_server: Any) -> None:
    """Both programs that started the shared server are long gone; it still answers."""
    wait_for(lambda: LocalPrefect().status().healthy, "the server's answer", 5)
    pid = LocalPrefect().status().pid
    assert pid is not None
    assert os.getsid(pid) == pid
