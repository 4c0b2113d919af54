"""Configuration: YAML and overrides -> a checked experiment, or every mistake at once with its place.

Importing this package loads neither Hydra nor OmegaConf; `load_experiment` does.
"""

from __future__ import annotations

from llsflow.config.completion import complete
from llsflow.config.deployments import load_deployments
from llsflow.config.folders import (
    Option,
    Registered,
    config_source,
    copy_config,
    list_options,
    option_exists,
    packaged_conf,
    resolve_conf_uri,
)
from llsflow.config.load import Loaded, load_experiment
from llsflow.config.output import json_schema, to_yaml
from llsflow.config.standing import load_agent, load_server

__all__ = [
    "Loaded",
    "Option",
    "Registered",
    "complete",
    "config_source",
    "copy_config",
    "json_schema",
    "list_options",
    "load_agent",
    "load_deployments",
    "load_experiment",
    "load_server",
    "option_exists",
    "packaged_conf",
    "resolve_conf_uri",
    "to_yaml",
]
