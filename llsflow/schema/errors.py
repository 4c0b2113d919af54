"""The one body of every error that the API answers with."""

from __future__ import annotations

from llsflow.schema.base import Record


class Error(Record):
    """What went wrong (roughly RFC 7807)."""

    status: int
    """HTTP status code."""
    title: str
    """The same for every error of a kind."""
    detail: str
    """What was found, what is allowed, and the fix."""
    instance: str | None = None
    """The request's path."""
