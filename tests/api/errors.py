"""What every error of the API looks like."""

from __future__ import annotations

import httpx

from llsflow.schema.errors import Error


def assert_error(response: httpx.Response, status: int, *told: str) -> Error:
    """Check that a response is the one body of every error, and that it says what is `told`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = Error.model_validate(response.json())
    assert error.status == status
    assert error.title
    assert error.instance == response.request.url.path
    for words in told:
        assert words in error.detail
    assert "Traceback" not in error.detail
    return error
