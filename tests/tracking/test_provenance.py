from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llsflow.tracking import provenance
from llsflow.tracking.provenance import command_line, git_state, git_tags, masked


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a git checkout with one commit, as the current folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "-q", "-b", "trunk")
    git("remote", "add", "origin", "https://me:secret@example.org/repo.git")
    (folder / "file").write_text("a")
    git("add", "file")
    git("-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "-m", "m")
    git_state.cache_clear()
    yield folder
    git_state.cache_clear()


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607


def test_git_state_of_a_checkout(checkout: Path) -> None:
    assert git_state() == {
        "commit": git("rev-parse", "HEAD"),
        "branch": "trunk",
        "dirty": False,
        "remote": "https://example.org/repo.git",
    }
    (checkout / "file").write_text("b")
    git_state.cache_clear()
    assert git_tags()["mlflow.source.git.dirty"] == "true"
    assert git_tags()["mlflow.source.git.commit"] == git("rev-parse", "HEAD")


def test_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git_state.cache_clear()
    found = provenance()
    git_state.cache_clear()
    assert (found["git"], found["lock"]) == (None, None)
    assert found["libraries"]["mlflow"]
    assert json.loads(json.dumps(found)) == found


def test_lock_file_of_a_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.lock").write_bytes(b"torch==2.13.0\n")
    (tmp_path / "below").mkdir()
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    expected = hashlib.sha256(b"torch==2.13.0\n").hexdigest()
    assert provenance()["lock"] == {"file": "requirements.lock", "sha256": expected}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["run", "quickstart", "lr=1e-3"], ["run", "quickstart", "lr=1e-3"]),
        (["model.api_key=abc", "tokenizer=x"], ["model.api_key=***", "tokenizer=x"]),
        (["--api-key", "abc", "run"], ["--api-key", "***", "run"]),
        (["--token=abc"], ["--token=***"]),
        (["tracking.uri=http://me:pw@host/x"], ["tracking.uri=http://me:***@host/x"]),
        (["max_tokens=64", "eos_token=x"], ["max_tokens=64", "eos_token=x"]),
        (["--password", "--token"], ["--password", "***"]),
    ],
)
def test_secrets_are_masked(arguments: list[str], shown: list[str]) -> None:
    assert masked(arguments) == shown


def test_command_line_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/venv/bin/llsflow", "run", "name=two words", "hf_token=abc"])
    assert command_line() == "llsflow run 'name=two words' 'hf_token=***'"


def test_heavy_libraries_are_not_imported_for_their_version(tmp_path: Path) -> None:
    code = (
        "import sys; from llsflow.tracking import provenance; provenance();"
        "print({'torch', 'mlflow', 'transformers', 'prefect', 'lightning'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "set()"
