"""A model behind an OpenAI-compatible endpoint: the embedded engine, vLLM, or any other."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llsflow.errors import NotFoundError, UnavailableError
from llsflow.models.protocol import NOT_A_NUMBER, OUT_OF_MEMORY, request_body
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    import httpx

AT_ONCE = 256
"""Connections that are kept open to endpoints."""


def chat(
    base_url: str,
    model: str,
    conversation: Sequence[Mapping[str, object]],
    sampling: SamplingParams,
    *,
    seed: int | None = None,
    timeout: float = 600.0,
) -> str:
    """Return the model's answer to a conversation.

    Args:
        base_url: of the endpoint, without /v1.
        model: its id there.
        conversation: messages with role and content.
        sampling: how the answer is sampled.
        seed: of the draws; null: the endpoint's choice.
        timeout: seconds for the whole answer.

    Raises:
        ValueError: the endpoint refuses this conversation or these parameters, and why.
        NotFoundError: it has no such model.
        UnavailableError: it does not answer, not in time, or not with an answer.
    """
    import httpx

    url = f"{base_url.rstrip('/')}/v1/chat/completions"
    try:
        response = _client(_is_here(base_url)).post(
            url, json=request_body(model, conversation, sampling, seed), timeout=timeout
        )
    except httpx.TimeoutException as error:
        raise UnavailableError(f"the inference engine gave no answer within {timeout:g} s: try again") from error
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise UnavailableError(f"the inference engine does not answer ({why}): try again") from error
    if response.status_code != httpx.codes.OK:
        _refuse(response)
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UnavailableError("the inference engine answered with something that is no completion") from error


def _refuse(response: httpx.Response) -> None:
    """Raise what an error answer means."""
    try:
        error: Any = response.json()["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"HTTP {response.status_code}", None
    if response.status_code == 404:
        raise NotFoundError(message)
    if response.status_code in (400, 413, 422) or code in (OUT_OF_MEMORY, NOT_A_NUMBER):
        raise ValueError(message)
    raise UnavailableError(f"the inference engine cannot answer: {message}")


def _is_here(url: str) -> bool:
    import httpx

    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_opening = threading.Lock()
_clients: dict[bool, httpx.Client] = {}


def _client(here: bool) -> httpx.Client:
    """Return the client of this process; an address of this machine is never reached through a proxy."""
    import httpx

    with _opening:
        if here not in _clients:
            limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
            _clients[here] = httpx.Client(trust_env=not here, limits=limits)
        return _clients[here]
