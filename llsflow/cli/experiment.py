"""From the words of the command line to a checked experiment; shared by run, plan and check."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from llsflow.config import Loaded, list_options, load_experiment, to_yaml
from llsflow.data.catalogue import registered
from llsflow.errors import ConfigError, Mistake

logger = logging.getLogger("llsflow")


def load(options: argparse.Namespace) -> Loaded:
    """Return the experiment that the command line names.

    Raises:
        ConfigError: every mistake at once.
    """
    words = list(options.words)
    name = words.pop(0) if words and not options.config and "=" not in words[0] and words[0][0] not in "~+" else None
    if name is None and not options.config and not any(word.startswith("experiment=") for word in words):
        known = ", ".join(option.name for option in list_options(options.config_dir).get("experiment", []))
        raise ConfigError([Mistake("command line", f"names no experiment: known are {known}")])
    loaded = load_experiment(
        name, words, config_dir=options.config_dir, config_file=options.config, registered=registered
    )
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    return loaded


def printed(options: argparse.Namespace, loaded: Loaded) -> bool:
    """Print the composed configuration where `--cfg job` asks for it, and return whether it did."""
    if options.cfg:
        print(to_yaml(loaded), end="")
    return bool(options.cfg)


def again(options: argparse.Namespace) -> str:
    """Return the command line that does this again."""
    import shlex

    flags = [["--config-dir", str(options.config_dir)] if options.config_dir else []]
    flags.append(["--config", str(Path(options.config))] if options.config else [])
    return shlex.join(["llsflow", "run", *options.words, *(word for flag in flags for word in flag)])
