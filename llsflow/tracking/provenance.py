"""Where a result came from: code, lock file, libraries, machine and command."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from llsflow.home import file_digest

LIBRARIES = (
    "llsflow",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "lightning",
    "mlflow",
    "prefect",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pandas",
    "pyarrow",
)
LOCK_FILES = ("requirements.lock", "uv.lock", "poetry.lock", "pixi.lock", "requirements.txt")

_SECRET = re.compile(
    r"(api[-_]?keys?|access[-_]?keys?|(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_)token|secrets?|passw(or)?d|credentials?)$",
    re.IGNORECASE,
)


def provenance() -> dict[str, Any]:
    """Return where this process's results come from, as JSON; what cannot be found out is null."""
    return {
        "command": command_line(),
        "git": git_state(),
        "lock": lock_file(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "gpus": gpu_names(),
        "libraries": library_versions(),
    }


def library_versions() -> dict[str, str | None]:
    """Return the installed version of each library that decides a result."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def command_line() -> str:
    """Return the command that runs, fit to be typed again, with secrets masked."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return shlex.join([program, *masked(sys.argv[1:])])


def masked(arguments: list[str]) -> list[str]:
    """Return the arguments with the value of every key, token and password hidden."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hide_next:
            shown.append("***")
        elif equals and _SECRET.search(name):
            shown.append(f"{name}=***")
        else:
            shown.append(re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", argument))
        hide_next = not hide_next and not equals and argument.startswith("-") and bool(_SECRET.search(name))
    return shown


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return commit, branch, dirty and remote of the checkout around the current folder, or None."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    remote = _git("config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "remote": re.sub(r"://[^/@\s]*@", "://", remote) if remote else None,
    }


def git_tags() -> dict[str, str]:
    """Return the tags by which MLflow shows the commit."""
    state = git_state()
    if state is None:
        return {}
    tags = {
        "mlflow.source.git.commit": state["commit"],
        "mlflow.source.git.branch": state["branch"],
        "mlflow.source.git.dirty": str(state["dirty"]).lower(),
        "mlflow.source.git.repoURL": state["remote"],
    }
    return {key: value for key, value in tags.items() if value}


def lock_file() -> dict[str, str] | None:
    """Return name and sha256 of the nearest lock file, from here up to the top of the checkout, or None."""
    here = Path.cwd()
    above = [here, *here.parents]
    top = next((depth for depth, folder in enumerate(above) if (folder / ".git").exists()), 0)
    for folder in above[: top + 1]:
        for name in LOCK_FILES:
            if (folder / name).is_file():
                return {"file": name, "sha256": file_digest(folder / name)}
    return None


def cpu_name() -> str | None:
    """Return the processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or None


@functools.cache
def gpu_names() -> list[str]:
    """Return the NVIDIA devices that the driver names; empty where there is no driver."""
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return listed.splitlines() if listed else []


def _git(*arguments: str) -> str | None:
    return _output("git", *arguments)


def _output(program: str, *arguments: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
