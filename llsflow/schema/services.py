"""Where a service answers, and the variable that holds its key, in whatever file names one."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from llsflow.schema.base import Text


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.username or parts.password:
        raise ValueError("an address must not hold a password: set api_key_env to the variable that holds the key")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError(f"{value!r} is no address: write for example http://127.0.0.1:8000/v1")
    return value


def _base_url(value: str) -> str:
    if urlsplit(_url(value)).query:
        raise ValueError(f"{value!r} is no address that a path can follow: leave out what begins with ?")
    return value.rstrip("/")


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        # it may be the key itself, which no message repeats
        raise ValueError("is no name of an environment variable: write for example OPENAI_API_KEY, never the key")
    return value


Url = Annotated[Text, AfterValidator(_url)]
"""The whole address of a service."""

BaseUrl = Annotated[Text, AfterValidator(_base_url)]
"""What the paths of a service follow, as clients of it write it, for example http://127.0.0.1:8000/v1."""

Variable = Annotated[Text, AfterValidator(_variable)]
"""Name of an environment variable."""
