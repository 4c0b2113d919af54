"""The server and the deployments: one file each, checked like an experiment, every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from llsflow.config import load_deployments, load_server
from llsflow.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def mistakes(error: ConfigError) -> list[str]:
    return [str(mistake) for mistake in error.mistakes]


def test_the_packaged_server_stays_on_this_machine() -> None:
    server = load_server()
    assert (server.host, server.port) == ("127.0.0.1", 8321)


def test_overrides_with_and_without_the_groups_name() -> None:
    words = ["server.port=9000", "jobs.at_once=4", "++server.jobs.after_crash=fail", "data_roots=[/data]", "~host"]
    server = load_server(words)
    assert (server.port, server.jobs.at_once, server.jobs.after_crash) == (9000, 4, "fail")
    assert server.data_roots == ["/data"]
    assert server.host == "127.0.0.1", "its default again"


def test_a_file_of_the_users_stands_before_the_packaged(tmp_path: Path) -> None:
    write(tmp_path / "server" / "mine.yaml", "port: 1234\nstore: ${oc.env:HOME}/x.db\n")
    server = load_server(["server=mine", "engine.batch_size=2"], tmp_path)
    assert (server.port, server.engine.batch_size) == (1234, 2)
    assert server.store is not None
    assert server.store.endswith("/x.db")
    assert not server.store.startswith("$")


def test_every_mistake_of_the_command_line_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        load_server(["prot=9", "port=a", "engine.device=gpu", "jobs.at_onec=1", "recipe.x=1"])
    told = mistakes(raised.value)
    assert [text.split(":")[1].strip() for text in told] == [
        "prot=9",
        "port=a",
        "engine.device=gpu",
        "jobs.at_onec=1",
        "recipe.x=1",
    ]
    assert "did you mean port (" in told[0]
    assert "Allowed in a server: host, port" in told[0]
    assert "allowed: an integer of at least 0" in told[1]
    assert "did you mean 'cpu'?" in told[2]
    assert "did you mean jobs.at_once?" in told[3]
    assert "unknown key" in told[4]


def test_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    text = "port: 8321\nhots: x\nport: 1\ndefaults: []\njobs:\n  at_once: 0\n  _target_: os.system\n"
    file = write(tmp_path / "server" / "mine.yaml", text)
    with pytest.raises(ConfigError) as raised:
        load_server(["server=mine"], tmp_path)
    told = mistakes(raised.value)
    assert [text.removeprefix(f"{file}:").split(":")[0] for text in told] == ["2", "3", "4", "6", "7"]


@pytest.mark.parametrize("words", [["server=nope"], ["server=default", "server=default"], ["port"]])
def test_a_server_that_cannot_be_chosen(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        load_server(words)


NIGHTLY = "experiment: quickstart\ncron: 0 3 * * *\n"


def test_a_deployment_is_named_by_its_file(tmp_path: Path) -> None:
    write(tmp_path / "deployment" / "mine.yaml", NIGHTLY + "overrides: [seed=3]\n")
    mine, nightly = load_deployments(tmp_path)
    assert (mine.name, mine.overrides, mine.paused, mine.concurrency_limit) == ("mine", ["seed=3"], False, 1)
    assert (nightly.name, nightly.paused) == ("nightly", True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (NIGHTLY + "name: other\n", "name: found 'other', allowed: 'mine', the file's name"),
        ("experiment: quickstart\n", "found none, allowed: exactly one of cron, interval and rrule"),
        (NIGHTLY + "interval: 6h\n", "found cron and interval, allowed: exactly one of"),
        ("experiment: quickstrat\ncron: 0 3 * * *\n", "no experiment 'quickstrat'; did you mean 'quickstart'?"),
        ("cron: 0 3 * * *\n", "experiment: is missing"),
        (NIGHTLY + "overrides: [seeed=1]\n", "its experiment quickstart: command line: seeed=1: unknown key"),
        ("experiment: quickstart\ncron: 0 25 * * *\n", "cron: found '25' as the hour, allowed: *, 0 to 23"),
        ("experiment: quickstart\ninterval: 6 hours\n", "interval: found '6 hours', allowed: a number and its unit"),
        ("experiment: quickstart\nrrule: FREQ=NEVER\n", "rrule: found 'FREQ=NEVER'"),
        (NIGHTLY + "timezone: Mars/Olympus\n", "timezone: found 'Mars/Olympus', allowed: a name of the time zone"),
        (NIGHTLY + "collision: wait\n", "collision: found 'wait', allowed: one of enqueue, cancel_new"),
        (NIGHTLY + "pool: x\n", "pool: unknown key"),
    ],
)
def test_what_is_wrong_with_a_deployment(tmp_path: Path, text: str, told: str) -> None:
    file = write(tmp_path / "deployment" / "mine.yaml", text)
    with pytest.raises(ConfigError) as raised:
        load_deployments(tmp_path)
    (line,) = mistakes(raised.value)
    assert line.startswith(f"{file}:")
    assert told in line


def test_the_mistakes_of_all_files_are_told_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "deployment" / f"{name}.yaml", "experiment: nope\ncron: x\n")
    with pytest.raises(ConfigError) as raised:
        load_deployments(tmp_path)
    assert len(raised.value.mistakes) == 2
