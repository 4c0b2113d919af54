"""`llsflow deploy`: the schedules of conf/deployment, on the Prefect server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from llsflow.cli.joined import Difference, new_deployer
from llsflow.config import load_deployments
from llsflow.errors import ConfigError, Mistake

MARKS = {"created": "+", "changed": "~", "removed": "-"}
INNER = {"folder": "working folder", "command": "command of its processes", "config_dir": "--config-dir"}
"""Fields that no file has."""


def command(options: argparse.Namespace) -> int:
    """Show what differs, and apply it."""
    wanted = load_deployments(options.config_dir)
    with closing(new_deployer()) as deployer:
        deployer.start()
        differences = deployer.differences(wanted, options.config_dir)
        if not differences:
            print(f"nothing to change: {_counted(len(wanted))} as conf/deployment says")
            return 0
        for difference in differences:
            for line in _told(difference):
                print(line)
        if options.dry_run:
            return 0
        if not options.yes and not _agreed():
            print("nothing was changed")
            return 1
        deployer.apply(differences, wanted, options.config_dir)
    print(f"done: {_counted(len(wanted))}; they run for as long as `llsflow serve` does")
    return 0


def _counted(number: int) -> str:
    return f"{number} deployment{'' if number == 1 else 's'}"


def _told(difference: Difference) -> Iterator[str]:
    yield f"{MARKS[difference.kind]} {difference.name}  {difference.kind}"
    for key, (old, new) in difference.fields.items():
        change = _value(new) if difference.kind == "created" else f"{_value(old)} -> {_value(new)}"
        yield f"    {INNER.get(key, key)}: {change}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)


def _agreed() -> bool:
    """Ask.

    Raises:
        ConfigError: nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise ConfigError([Mistake("command line", "nobody can be asked here: add --yes to apply it")])
    return input("apply? [y/N] ").strip().lower() in ("y", "yes")
