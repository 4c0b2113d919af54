"""Where the command line meets flows/, which lies beside the package in a checkout and inside it in a wheel."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from llsflow.plan import Runner, Submitter
from llsflow.schema.deployment import Deployment
from llsflow.schema.server import ServerConfig

FLOWS = "llsflow.flows" if (Path(__file__).parents[1] / "flows").is_dir() else "flows"


class Stack(Protocol):
    """The services that runs leave in the background."""

    def stop(self) -> bool:
        """End them, and return whether any ran."""


def new_runner() -> Runner:
    """Return what runs plans."""
    runner: Runner = _flows("runner").PrefectRunner()
    return runner


def new_stack() -> Stack:
    """Return the local services."""
    stack: Stack = _flows("stack").LocalPrefect()
    return stack


class Keeper(Protocol):
    """The services beside the API, kept up."""

    def start(self) -> None:
        """Begin to bring them up, and return at once."""

    def health(self) -> dict[str, dict[str, Any]]:
        """Return the state of every service, since when, why and where."""

    def url(self, name: str) -> str | None:
        """Return the address of a service that is up, or None."""

    def stop(self) -> None:
        """End them all."""


def new_machine(
    server: ServerConfig, on_ready: Callable[[str, str], None], on_return: Callable[[str], None]
) -> tuple[Submitter, Keeper]:
    """Return who hands jobs to workers, and who keeps the services of this machine up."""
    prefect = _flows("stack").LocalPrefect()
    keeper: Keeper = _flows("keeper").Keeper(_flows("services").machine_services(server, prefect), on_ready, on_return)
    submitter: Submitter = _flows("submit").PrefectSubmitter(server.jobs.work_pool, _flows("rest").PrefectApi(prefect))
    return submitter, keeper


class Difference(Protocol):
    """What is to happen to one deployment on the Prefect server."""

    name: str
    kind: str
    fields: Mapping[str, tuple[Any, Any]]


class Deployer(Protocol):
    """Brings the schedules of the Prefect server in line with conf/deployment."""

    def start(self) -> str:
        """Start the local server unless it runs, and return its address once it answers."""

    def differences(self, wanted: Sequence[Deployment], config_dir: Path | None) -> Sequence[Difference]:
        """Return what is to happen; empty: nothing."""

    def apply(self, differences: Sequence[Difference], wanted: Sequence[Deployment], config_dir: Path | None) -> None:
        """Make it happen."""

    def close(self) -> None:
        """Close the connections."""


def new_deployer() -> Deployer:
    """Return what brings schedules to the Prefect server."""
    deployer: Deployer = _flows("deployments").Deployer()
    return deployer


def _flows(module: str) -> Any:
    return importlib.import_module(f"{FLOWS}.{module}")
