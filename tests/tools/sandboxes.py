"""Sandboxes for tests, where this machine can make them."""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
from typing import Any

import psutil
import pytest

from llsflow.tools.sandbox import Limits, Ran, Sandbox

LIMITS = Limits(cpu_seconds=20, memory_bytes=512 << 20, output_bytes=10_000)


def sandbox(python: str | None = None, at_once: int = 4, **limits: int) -> Sandbox:
    """Return one with other limits."""
    return Sandbox(python, Limits(**{**vars(LIMITS), **limits}), at_once)


@functools.cache
def why_none() -> str | None:
    """Return why bubblewrap can do nothing here; None: it can. What is broken of ours is no reason to skip."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed"
    least = ("--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true")
    done = subprocess.run([program, *least], capture_output=True, text=True, check=False)
    return f"bubblewrap may not make a sandbox here: {done.stderr.strip()}" if done.returncode else None


def skip_without_sandbox() -> None:
    """Skip where there is none."""
    if reason := why_none():
        pytest.skip(reason)


def run(code: str, python: str | None = None, **limits: int) -> Ran:
    """Return what comes of a program."""
    return asyncio.run(sandbox(python, **limits).run(code))


def said(code: str, **changes: Any) -> str:
    """Return what a program prints that ends well."""
    ran = run(code, **changes)
    assert (ran.status, ran.over) == (0, ""), ran.output
    return ran.output


def processes(mark: str) -> list[psutil.Process]:
    """Return the processes of this machine that have a word in their command."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found
