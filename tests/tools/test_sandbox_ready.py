"""What a sandbox needs: bubblewrap that may do its work, and an interpreter; and what it shows of where that lies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from llsflow.errors import ConfigError, UnavailableError
from tests.tools.sandboxes import run, said, sandbox, skip_without_sandbox


def program(folder: Path, text: str) -> None:
    """Put a bwrap first on the path."""
    folder.mkdir()
    (folder / "bwrap").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bwrap").chmod(0o755)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "needs bubblewrap, which is not installed: apt-get install bubblewrap"),
        ("echo bubblewrap 0.4.1", r"bwrap is bubblewrap 0\.4\.1, needed: 0\.8 or newer"),
        ("echo no memory >&2; exit 1", r"bwrap is no bubblewrap: --version ends with 1 \(no memory\)"),
        ("exit 0", r"bwrap is no bubblewrap, needed: 0\.8 or newer"),
        (
            '[ "$1" = --version ] && echo bubblewrap 0.9.0 && exit\n'
            "echo bwrap: setting up uid map: Permission denied >&2; exit 1",
            "no sandbox can be made here: .*bwrap: setting up uid map: Permission denied; user namespaces must be",
        ),
        (
            '[ "$1" = --version ] && echo bubblewrap 1.0 && exit\necho no frame',
            "no sandbox can be made here: the sandbox failed: it ended without an answer",
        ),
    ],
)
def test_what_is_missing_is_told_with_what_helps(
    text: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        program(tmp_path / "bin", text)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UnavailableError, match=sentence):
        asyncio.run(sandbox().ready())


@pytest.mark.parametrize("python", ["no-such-python", "/bin/true", "/etc/passwd"])
def test_what_is_no_python_is_refused(python: str) -> None:
    skip_without_sandbox()
    with pytest.raises(
        ConfigError, match=f"provider.python: '{python}' is no Python: write the path of an interpreter"
    ):
        asyncio.run(sandbox(python).ready())


def test_it_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    skip_without_sandbox()

    async def talk() -> None:
        here = sandbox()
        await here.ready()
        monkeypatch.setenv("PATH", str(tmp_path))
        await here.ready()
        assert (await here.run("1 + 1")).output == "2\n"
        with pytest.raises(UnavailableError):
            await sandbox().ready()

    asyncio.run(talk())


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment whose Python lies elsewhere, with a package of its own."""
    skip_without_sandbox()
    folder = tmp_path / "house" / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (package,) = folder.glob("lib/python*/site-packages")
    (package / "only_here.py").write_text("name = 'only here'")
    (folder / "secret.txt").write_text("a secret")
    return folder


def test_an_environment_brings_its_packages_and_nothing_else(environment: Path) -> None:
    look = f"import os, only_here\nonly_here.name, sorted(os.listdir({str(environment)!r}))"
    assert said(look, python=str(environment / "bin" / "python")) == "('only here', ['lib'])\n"
    assert run("import numpy", python=str(environment / "bin" / "python")).status == 1
    assert run("import only_here").status == 1


def test_folders_of_the_server_that_lie_among_packages_are_hidden(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package,) = environment.glob("lib/python*/site-packages")
    state = package / "outputs"
    state.mkdir()
    (state / "llsflow.db").write_text("a secret")
    monkeypatch.setenv("LLSFLOW_HOME", str(state))
    monkeypatch.chdir(state)
    look = f"import os, only_here\nos.listdir({str(state)!r})"
    assert said(look, python=str(environment / "bin" / "python")) == "[]\n"
    write = f"open({str(state / 'new')!r}, 'w')"
    assert (
        run(write, python=str(environment / "bin" / "python"))
        .output.strip()
        .endswith("Read-only file system: " + repr(str(state / "new")))
    )


def test_they_are_hidden_behind_links_too(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package,) = environment.glob("lib/python*/site-packages")
    (package / "outputs").mkdir()
    (package / "outputs" / "llsflow.db").write_text("a secret")
    monkeypatch.setenv("LLSFLOW_HOME", str(package / "outputs"))
    (tmp_path / "linked").symlink_to(environment)
    look = "import os, only_here\nos.listdir(os.path.dirname(only_here.__file__) + '/outputs')"
    assert said(look, python=str(tmp_path / "linked" / "bin" / "python")) == "[]\n"


def test_a_python_of_the_system_does() -> None:
    skip_without_sandbox()
    if not Path("/usr/bin/python3").exists():
        pytest.skip("there is no /usr/bin/python3")
    assert said("import sys\nsys.base_prefix", python="/usr/bin/python3") == "'/usr'\n"
