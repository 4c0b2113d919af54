"""How the server is."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from llsflow.schema.base import Record


class PartState(StrEnum):
    """How a part of the server is."""

    OK = "ok"
    STARTING = "starting"
    DOWN = "down"


class HealthPart(Record):
    """A part of the server."""

    state: PartState
    since: datetime | None = None
    """When it came into this state."""
    why: str | None = None
    """What is wrong, in words."""
    url: str | None = None
    """Where it answers."""


class HealthInfo(Record):
    """How the server is."""

    status: Literal["OK", "Error"]
    """OK: requests are answered; the parts say what else works."""
    parts: dict[str, HealthPart] = {}
    """Told to those who may come in."""


class VersionInfo(Record):
    """What the server is."""

    version: str
