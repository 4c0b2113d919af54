"""An experiment as YAML that reads back as the same record, and the schema as JSON Schema for editors."""

from __future__ import annotations

import copy
import functools
import re
from enum import Enum
from typing import Any

import yaml
from pydantic import BaseModel

from llsflow.config.fields import kind_at
from llsflow.config.files import omegaconf_loader
from llsflow.config.folders import EXPERIMENT
from llsflow.config.load import Loaded
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.deployment import Deployment
from llsflow.schema.experiment import Experiment
from llsflow.schema.server import ServerConfig
from llsflow.schema.shields import ShieldConfig
from llsflow.schema.toolgroups import ToolGroupConfig

SEVERAL_LINES = 2
OTHER_LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")
STANDING: dict[str, type[BaseModel]] = {
    "server": ServerConfig,
    "deployment": Deployment,
    "toolgroup": ToolGroupConfig,
    "shield": ShieldConfig,
}
"""Groups that are no part of an experiment."""

INTERPOLATION_SCHEMA = {"type": "string", "pattern": r"^\?\?\?$|\$\{"}


def to_yaml(experiment: Loaded | Experiment) -> str:
    """Return the complete record as YAML, in the schema's order, that loads back as the same record.

    Values that came from environment variables are written as their interpolation, never as the value; that takes a
    `Loaded`, a bare `Experiment` no longer knows where its values came from.
    """
    record = experiment.experiment if isinstance(experiment, Loaded) else experiment
    hidden = experiment.environment if isinstance(experiment, Loaded) else {}
    tree = _escaped(record.model_dump())
    for key, text in hidden.items():
        _put(tree, key, text)
    return yaml.dump(tree, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str) and "${" in value:
        return re.sub(r"(\\*)\$\{", lambda match: match.group(1) * 2 + r"\${", value)
    return value


def _put(tree: Any, dotted_key: str, text: str) -> None:
    # keys may hold dots themselves: every way of reading the dotted key is followed
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        if str(key) == dotted_key:
            tree[key] = text
        elif dotted_key.startswith(f"{key}."):
            _put(value, dotted_key[len(str(key)) + 1 :], text)


@functools.cache
def _dumper() -> Any:
    class Dumper(yaml.SafeDumper):
        """Quotes what OmegaConf would read as something else than text, 1e-4 for example."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        many_lines = value.count("\n") >= SEVERAL_LINES and not re.search(r"[ \t]\n|^\s", value)
        # YAML folds these like line ends unless they are written as escapes
        style = '"' if OTHER_LINE_ENDS.search(value) else "|" if many_lines else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    Dumper.yaml_implicit_resolvers = copy.deepcopy(omegaconf_loader().yaml_implicit_resolvers)
    return Dumper


def json_schema(group: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema of conf/experiment files, or of one group's files, for editors.

    Nothing is required (another file may say it), a `defaults` list is allowed, and so are `${…}` and `???` anywhere.

    Raises:
        ConfigError: there is no such group.
    """
    model: type[BaseModel] = Experiment
    if group is not None and group in STANDING:
        model = STANDING[group]
    elif group not in (None, EXPERIMENT):
        kind = kind_at((str(group),))
        if kind is None or not kind.records:
            parts = (name for name in Experiment.model_fields if (k := kind_at((name,))) and k.records)
            known = [EXPERIMENT, *parts, *STANDING]
            raise ConfigError([Mistake(str(group), f"no such group; known: {', '.join(known)}")])
        model = kind.records[0]
    schema = _lenient(model.model_json_schema())
    schema["properties"]["defaults"] = {"type": "array", "description": "Files that this one builds on."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _lenient(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_lenient(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == "required":
            continue
        if key == "properties":
            result[key] = {name: _or_interpolation(_lenient(item)) for name, item in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            result[key] = value
        else:
            result[key] = _lenient(value)
    return result


def _or_interpolation(schema: Any) -> Any:
    outside = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    inside = {key: value for key, value in schema.items() if key not in outside}
    if not inside or inside == {"type": "string"}:
        return schema
    members = inside["anyOf"] if set(inside) == {"anyOf"} else [inside]
    return {**outside, "anyOf": [*members, INTERPOLATION_SCHEMA]}
