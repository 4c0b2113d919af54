"""Pages of a longer list."""

from __future__ import annotations

from typing import Any

from llsflow.schema.base import Record


class PaginatedResponse(Record):
    """A part of a list, and where the next part is."""

    data: list[dict[str, Any]]
    has_more: bool
    """Whether something comes after this page."""
    url: str | None = None
    """The next page; null: this is the last."""
