"""Sandboxes for tests, where this machine can make them."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import psutil
import pytest

from llsflow.errors import UnavailableError
from llsflow.tools.sandbox import Limits, Ran, Sandbox

LIMITS = Limits(cpu_seconds=20, memory_bytes=512 << 20, output_bytes=10_000)


def sandbox(python: str | None = None, at_once: int = 4, **limits: int) -> Sandbox:
    """Return one with other limits."""
    return Sandbox(python, Limits(**{**vars(LIMITS), **limits}), at_once)


@functools.cache
def why_none() -> str | None:
    """Return why there is no sandbox here; None: there is."""
    try:
        asyncio.run(sandbox().ready())
    except UnavailableError as error:
        return str(error)
    return None


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
