"""Services come up in order, come back when they end, and end together."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from flows.keeper import Keeper
from llsflow.errors import UnavailableError
from tests.patience import PATIENCE_SECONDS


@dataclass
class Sleeper:
    """A real process that only sleeps."""

    name: str
    after: Sequence[str] = ()
    refuses: int = 0
    """So many starts fail."""
    log: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.refuses:
            self.refuses -= 1
            raise UnavailableError("the port is taken")
        self.log.append(f"start {self.name}")
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def end_of_it(self) -> str | None:
        assert self.process is not None
        code = self.process.poll()
        return None if code is None else f"ended with code {code}"

    def ready(self) -> str | None:
        return f"http://{self.name}"

    def stop(self) -> None:
        assert self.process is not None
        self.log.append(f"stop {self.name}")
        self.process.kill()
        self.process.wait()


@dataclass
class Heard:
    """What the keeper told."""

    up: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, into: list[str], name: str) -> None:
        with self.changed:
            into.append(name)
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=PATIENCE_SECONDS), (self.up, self.back)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def keep(heard: Heard) -> Iterator[Callable[..., Keeper]]:
    keepers: list[Keeper] = []

    def make(*services: Sleeper) -> Keeper:
        keeper = Keeper(
            services,
            on_ready=lambda name, url: heard.tell(heard.up, name),
            on_return=lambda name: heard.tell(heard.back, name),
        )
        keepers.append(keeper)
        keeper.start()
        return keeper

    yield make
    for keeper in keepers:
        keeper.stop()


def test_services_start_after_those_they_need_and_end_before_them(keep: Callable[..., Keeper], heard: Heard) -> None:
    log: list[str] = []
    keeper = keep(Sleeper("worker", after=["prefect"], log=log), Sleeper("prefect", log=log))
    heard.until(lambda: len(heard.up) == 2)
    assert heard.up == ["prefect", "worker"]
    assert keeper.url("worker") == "http://worker"
    assert keeper.health()["prefect"]["state"] == "ready"
    keeper.stop()
    assert log == ["start prefect", "start worker", "stop worker", "stop prefect"]
    assert keeper.url("worker") is None


def test_a_service_that_was_killed_comes_back_and_is_told(keep: Callable[..., Keeper], heard: Heard) -> None:
    sleeper = Sleeper("engine")
    keep(sleeper)
    heard.until(lambda: heard.up == ["engine"])
    assert sleeper.process is not None
    first = sleeper.process
    first.kill()
    heard.until(lambda: heard.back == ["engine"])
    assert sleeper.process is not first
    assert sleeper.process.poll() is None


def test_a_start_that_fails_is_told_and_tried_again(keep: Callable[..., Keeper], heard: Heard) -> None:
    keeper = keep(Sleeper("prefect", refuses=1))
    heard.until(lambda: heard.up == ["prefect"])
    assert keeper.health()["prefect"]["state"] == "ready"


def test_what_needs_a_service_that_is_down_waits(keep: Callable[..., Keeper], heard: Heard) -> None:
    refusing = Sleeper("prefect", refuses=10_000)
    keeper = keep(refusing, Sleeper("worker", after=["prefect"]), Sleeper("engine"))
    heard.until(lambda: heard.up == ["engine"])
    heard.until(lambda: True)
    assert keeper.health()["worker"]["state"] == "waiting"
