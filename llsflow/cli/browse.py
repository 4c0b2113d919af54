"""`llsflow ls`, `show`, `cp` and `schema`: find, read and take configuration."""

from __future__ import annotations

import argparse
import json

from llsflow.config import config_source, copy_config, json_schema, list_options
from llsflow.errors import ConfigError, Mistake


def ls(options: argparse.Namespace) -> int:
    """List groups with their options, or the options of one group with what they are."""
    groups = list_options(options.config_dir)
    if options.group is None:
        width = max(map(len, groups))
        for group, found in groups.items():
            print(f"{group:<{width}}  {', '.join(option.name for option in found)}")
        return 0
    if options.group not in groups:
        raise ConfigError([Mistake("command line", f"no group {options.group!r}: groups are {', '.join(groups)}")])
    found = groups[options.group]
    width = max((len(option.name) for option in found), default=0)
    for option in found:
        print(f"{option.name:<{width}}  {option.description}".rstrip())
    return 0


def show(options: argparse.Namespace) -> int:
    """Print one file."""
    path, text = config_source(options.name, options.config_dir)
    print(f"# {path}\n{text}", end="")
    return 0


def cp(options: argparse.Namespace) -> int:
    """Copy one file."""
    print(f"{copy_config(options.name, options.destination)}: yours to change; it stands before the packaged one")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Print a JSON Schema."""
    print(json.dumps(json_schema(options.group), indent=2, ensure_ascii=False))
    return 0
