"""Who may come in, and how often."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llsflow.api.access import MOST_CALLERS, Pace, check_may_listen, is_loopback, read_keys
from llsflow.api.deps import Services
from llsflow.errors import ConfigError
from llsflow.schema.server import ServerConfig
from tests.api.conftest import Served, serve
from tests.api.errors import assert_error

PATH = "/v1beta/datasets"
ANY = "0.0.0.0"  # noqa: S104 - an address to be refused


@pytest.fixture
def keyed(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """A server that takes the keys `variable` and `file`."""
    monkeypatch.setenv("LLSFLOW_API_KEY", "variable")
    keys = tmp_path / "keys"
    keys.write_text(f"# who may come in\n\n{hashlib.sha256(b'file').hexdigest().upper()} team a\n")
    services.server = ServerConfig(port=0, api_keys_file=str(keys))
    return services


def test_any_key_opens_and_no_other_does(keyed: Services) -> None:
    for served in serve(keyed):
        for key in ("variable", "file"):
            assert served.http.get(PATH, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        for header in (b"Bearer other", b"Bearer", b"Basic variable", b"variable", b"Bearer \xfc\xff"):
            refused = served.http.get(PATH, headers={"Authorization": header})
            assert_error(refused, 401, "Bearer KEY")
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert "variable" not in refused.text
        assert_error(served.http.get(PATH), 401, "a key is needed")
        assert_error(served.http.get("/nothing"), 401)
        assert_error(served.http.get("/v1/datasets"), 401)


def test_health_is_open_and_its_parts_are_not(keyed: Services) -> None:
    for served in serve(keyed):
        assert served.http.get("/v1/health").json() == {"status": "OK", "parts": {}}
        known = served.http.get("/v1/health", headers={"Authorization": "Bearer file"}).json()
        assert known["parts"]["store"]["state"] == "ok"
        assert served.http.get("/openapi.json").status_code == 200
        assert served.http.get("/docs").status_code == 200


def test_without_keys_only_this_machine_is_spoken_to(http: httpx.Client) -> None:
    for host in ("localhost", "127.0.0.1:8321", "[::1]:8321", "127.1.2.3"):
        assert http.get("/v1/version", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::", ""):
        assert_error(http.get("/v1/version", headers={"Host": host}), 403, "Host: found")


def test_without_keys_pages_of_other_sites_cannot_send(http: httpx.Client) -> None:
    for origin in ("http://localhost:3000", "http://127.0.0.1"):
        assert http.get("/v1/version", headers={"Origin": origin}).status_code == 200
    for origin in ("https://evil.example", "null", "http://[::"):
        assert_error(http.post(f"{PATH}?purpose=x", headers={"Origin": origin}), 403, "Origin: found")


def test_with_a_key_any_name_may_lead_here(keyed: Services) -> None:
    for served in serve(keyed, Authorization="Bearer file"):
        assert (
            served.http.get(PATH, headers={"Host": "gpu.example", "Origin": "https://gpu.example"}).status_code == 200
        )


def test_who_asks_too_often_is_told_when_to_come_again(services: Services) -> None:
    services.server = ServerConfig(port=0, requests_per_minute=3)
    for served in serve(services):
        assert [served.http.get("/v1/version").status_code for _ in range(3)] == [200] * 3
        refused = served.http.get("/v1/version")
        assert_error(refused, 429, "more than 3 requests in a minute")
        assert 1 <= int(refused.headers["retry-after"]) <= 21


def test_each_key_has_its_own_pace(keyed: Services) -> None:
    keyed.server = keyed.server.model_copy(update={"requests_per_minute": 2})
    for served in serve(keyed):
        statuses = [_status(served, key) for key in ("file", "file", "file", "variable", "wrong", "wrong", "guess")]
        assert statuses == [200, 200, 429, 200, 401, 401, 429]


def _status(served: Served, key: str) -> int:
    return served.http.get(PATH, headers={"Authorization": f"Bearer {key}"}).status_code


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60), st.integers(1, 20))
def test_no_minute_holds_more_than_its_burst_and_its_share(gaps: list[float], per_minute: int) -> None:
    pace, now = Pace(per_minute), 0.0
    served: list[float] = []
    for gap in gaps:
        now += gap
        wait = pace.wait_seconds("one", now)
        if wait == 0:
            served.append(now)
        else:
            # whoever waits as long as they are told is served
            assert Pace.wait_seconds(_copied(pace), "one", now + wait + 1e-6) == 0
    for start in served:
        within = sum(start <= at <= start + 60 for at in served)
        assert within <= 2 * per_minute


def _copied(pace: Pace) -> Pace:
    return Pace(pace.per_minute, pace._buckets.copy())


def test_an_hour_of_silence_saves_up_no_more_than_a_burst() -> None:
    pace = Pace(3)
    assert pace.wait_seconds("one", 0.0) == 0
    assert [pace.wait_seconds("one", 3600.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_callers_are_forgotten_before_they_fill_the_memory() -> None:
    pace = Pace(1)
    for number in range(MOST_CALLERS + 10):
        assert pace.wait_seconds(f"caller {number}", 0.0) == 0
    assert pace.wait_seconds(f"caller {MOST_CALLERS + 9}", 0.0) > 0
    assert len(pace._buckets) == MOST_CALLERS


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLSFLOW_API_KEY", raising=False)
    check_may_listen(ServerConfig())
    for host in (ANY, "::", "192.168.1.5", "gpu.example"):
        with pytest.raises(ConfigError, match="LLSFLOW_API_KEY"):
            check_may_listen(ServerConfig(host=host))
    monkeypatch.setenv("LLSFLOW_API_KEY", "secret")
    check_may_listen(ServerConfig(host=ANY))


def test_a_file_of_keys_that_holds_none_is_told(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_keys(ServerConfig(api_keys_file=str(keys)))
    keys.write_text("secret\n# a remark\ncafe team\n")
    with pytest.raises(ConfigError) as error:
        read_keys(ServerConfig(api_keys_file=str(keys)))
    assert [mistake.message.split(":")[0] for mistake in error.value.mistakes] == ["line 1", "line 3"]
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "found"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), (ANY, False), ("a.b", False)],
)
def test_loopback(host: str, found: bool) -> None:
    assert is_loopback(host) is found
