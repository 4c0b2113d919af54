"""The Prefect API over HTTP, for what need not import Prefect: that takes two seconds, a request ten milliseconds."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from llsflow.errors import LlsflowError, UnavailableError

from .stack import LocalPrefect, beyond_this_machine

_BUSY_SECONDS = (0.1, 0.3)
"""Before another try: 503 is its answer where two requests write the same at once, or its database is busy."""


class RefusedError(LlsflowError):
    """Prefect answered that it will not do what it was asked."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class PrefectApi:
    """Requests to the Prefect server of this home, or to the one that PREFECT_API_URL names; safe in many threads."""

    def __init__(self, prefect: LocalPrefect | None = None, timeout_seconds: float = 10.0) -> None:
        """Make a client; nothing is asked yet.

        Args:
            prefect: the server; None: as the environment says.
            timeout_seconds: how long an answer may take.
        """
        self.prefect = prefect or LocalPrefect()
        # With a proxy of the environment's where the server is not on this machine.
        self._clients = {beyond: httpx.Client(timeout=timeout_seconds, trust_env=beyond) for beyond in (False, True)}

    @property
    def url(self) -> str | None:
        """Address of the API; None: no server of this home was started."""
        return self.prefect.external or self.prefect.local_url()

    def get(self, path: str) -> Any:
        """Return the answer to a GET as parsed JSON.

        Raises:
            UnavailableError: no answer.
            RefusedError: an answer that is none.
        """
        return self.request("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a POST as parsed JSON; raises as `get` does."""
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer to a request as parsed JSON, None where it has no body; raises as `get` does."""
        url = self.url
        if url is None:
            raise UnavailableError("no Prefect server of this LLSFLOW_HOME runs: `llsflow serve` starts one")
        for waiting in (*_BUSY_SECONDS, None):
            answer = self._answer(method, url, path, body)
            if answer.status_code != 503 or waiting is None:
                break
            time.sleep(waiting)
        if answer.status_code >= 500 or answer.status_code in (401, 403, 429):
            raise UnavailableError(f"Prefect at {_shown(url)} answers with status {answer.status_code}")
        if answer.is_error:
            raise RefusedError(answer.status_code, f"Prefect refused {method} {path}: {_detail(answer)}")
        return answer.json() if answer.content else None

    def _answer(self, method: str, url: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        client = self._clients[beyond_this_machine(url)]
        try:
            return client.request(method, url + path, json=body, headers=self._headers())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"Prefect at {_shown(url)} does not answer: {type(error).__name__}") from error

    def _headers(self) -> dict[str, str]:
        """Return the login of the user's own server; this home's takes none."""
        return {**_custom_headers(), **_login()} if self.prefect.external else {}

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()


def _login() -> dict[str, str]:
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if words := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode('ascii')}"}
    return {}


def _custom_headers() -> dict[str, str]:
    try:
        found = json.loads(os.environ.get("PREFECT_CLIENT_CUSTOM_HEADERS") or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _detail(answer: httpx.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return answer.text[:300]
    detail = found.get("detail", found.get("exception_detail", found)) if isinstance(found, dict) else found
    return str(detail)[:300]


def _shown(url: str) -> str:
    """Return the address without a user and a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
