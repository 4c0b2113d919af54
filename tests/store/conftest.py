"""A store on each database: SQLite in a file, and a private PostgreSQL where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from llsflow.store import Store


def _postgres_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl: the newest that Debian has, or what pg_config names."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if installed:
        return installed[-1].parent
    if program := shutil.which("pg_config"):
        folder = Path(subprocess.run([program, "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
        return folder if (folder / "initdb").exists() else None
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own; it ends with the session."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # a socket's path is short, so not pytest's folder; the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="llsflow-pg-"))
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def call(*command: str) -> None:
        subprocess.run([*user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call(f"{programs}/initdb", "--auth=trust", "--username=llsflow", "--encoding=UTF8", "--locale=C", str(data))
    options = f"-k {folder} -c listen_addresses='' -c max_connections=200 -c fsync=off"
    call(f"{programs}/pg_ctl", "start", "--wait", f"--pgdata={data}", f"--log={folder}/log", f"--options={options}")
    try:
        yield f"postgresql://llsflow@/postgres?host={folder}"
    finally:
        call(f"{programs}/pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={data}")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty store on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    import psycopg
    from psycopg import sql

    server: str = request.getfixturevalue("postgres")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        # a schema is made in a millisecond, a database in half a second
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    return f"{server}&options=-csearch_path%3D{name}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open store on each database."""
    with Store.open(url) as opened:
        yield opened
