"""Operations of an OpenAPI document as functions.

Source: spec.openapis.org/oas/v3.1.0, Paths Object, Operation Object, Parameter Object.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llsflow.config.folders import CONF_SCHEME, resolve_conf_uri
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.kinds import or_known
from llsflow.schema.toolgroups import HttpFunction

logger = logging.getLogger("llsflow.tools")

METHODS = ("get", "post", "put", "patch", "delete")
DEEPEST = 30
"""References within references that are followed."""


def functions_of(place: str, operations: Sequence[str] | None) -> list[HttpFunction]:
    """Return the operations of a document, or those of them that are named.

    Parameters of the path and the query are arguments, and the properties of a body of JSON beside them.

    An operation that takes what cannot be sent is left out with a warning, where it is not named.

    Raises:
        ConfigError: it cannot be read, names no such operation, or one that is named takes what cannot be sent: every
            mistake at once.
    """
    document = _read(place)
    if not str(document.get("openapi", "")).startswith("3."):
        raise ConfigError([Mistake("provider.openapi", f"{place} is no OpenAPI 3 document: its key openapi says 3.x")])
    found: dict[str, HttpFunction] = {}
    mistakes: list[Mistake] = []
    left_out: list[Mistake] = []
    for operation_id, path, method, operation in _operations(document):
        if operations is not None and operation_id not in operations:
            continue
        try:
            found[operation_id] = _function(document, operation_id, path, method, operation)
        except ValueError as error:
            left_out.append(Mistake("provider.openapi", f"{operation_id}: {error}"))
    if operations is not None or not found:  # what is asked for by name has to be there
        mistakes += left_out
    known = [operation_id for operation_id, *_ in _operations(document)]
    for number, name in enumerate(operations or ()):
        if name not in known:
            message = f"no operationId {name!r}{or_known(name, known)}"
            mistakes.append(Mistake(f"provider.operations.{number}", message))
    if mistakes:
        raise ConfigError(mistakes)
    for one in left_out:
        logger.warning("%s: this operation is left out: %s", place, one.message)
    return list(found.values())


def _read(place: str) -> Mapping[str, Any]:
    import yaml

    path = resolve_conf_uri(place) if place.startswith(CONF_SCHEME) else Path(place).expanduser()
    try:
        document = yaml.safe_load(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([Mistake("provider.openapi", f"{place} cannot be read: {error}")]) from None
    if not isinstance(document, dict):
        raise ConfigError([Mistake("provider.openapi", f"{place} is no OpenAPI document: it holds no mapping")])
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for path, item in (document.get("paths") or {}).items():
        for method in METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if isinstance(operation, dict) and operation.get("operationId"):
                shared = item.get("parameters") or []
                yield (
                    str(operation["operationId"]),
                    str(path),
                    method,
                    {**operation, "parameters": [*shared, *(operation.get("parameters") or [])]},
                )


def _function(
    document: Mapping[str, Any], name: str, path: str, method: str, operation: Mapping[str, Any]
) -> HttpFunction:
    properties: dict[str, Any] = {}
    required: list[str] = []
    joints: dict[str, str] = {}
    for given in operation["parameters"]:
        parameter = _resolved(document, given)
        if parameter.get("in") not in ("path", "query"):
            if parameter.get("required"):
                raise ValueError(f"the parameter {parameter.get('name')!r} goes into the {parameter.get('in')}")
            continue
        if parameter["in"] == "query" and method not in ("get", "delete"):
            raise ValueError(f"the parameter {parameter['name']!r} goes into the query of a {method.upper()}")
        schema = dict(_resolved(document, parameter.get("schema") or {}))
        properties[parameter["name"]] = {**schema, **_described(parameter)}
        if parameter["in"] == "query" and (joint := _joint(parameter)):
            joints[parameter["name"]] = joint
        if parameter.get("required"):
            required.append(parameter["name"])
    body = _body(document, operation)
    clash = sorted({*properties} & {*body.get("properties", ())})
    if clash:
        raise ValueError(f"{', '.join(clash)} is both a parameter and in the body")
    schema = {
        "type": "object",
        "properties": {**properties, **body.get("properties", {})},
        "required": [*required, *body.get("required", ())],
        "additionalProperties": body.get("additionalProperties", False),
    }
    described = " ".join(str(operation[key]) for key in ("summary", "description") if operation.get(key))
    said = {"name": name, "description": described, "method": method.upper(), "path": path, "input_schema": schema}
    return HttpFunction.model_validate({**said, "joined": joints})


def _joint(parameter: Mapping[str, Any]) -> str | None:
    """Return what stands between the items of a list in the query; None: each item is a parameter of its own.

    Source: spec.openapis.org/oas/v3.1.0, Style Examples.
    """
    style = parameter.get("style", "form")
    if parameter.get("explode", style == "form"):
        return None
    return {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}.get(style)


def _described(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": parameter["description"]} if parameter.get("description") else {}


def _body(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Mapping[str, Any]:
    if not operation.get("requestBody"):
        return {}
    content = _resolved(document, operation["requestBody"]).get("content") or {}
    if "application/json" not in content:
        raise ValueError(f"its body is {', '.join(content) or 'nothing'}: application/json is sent")
    schema = _merged(_resolved(document, content["application/json"].get("schema") or {}))
    if schema.get("type", "object" if "properties" in schema else None) != "object":
        raise ValueError("its body is no object")
    return schema


def _merged(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with the parts of its `allOf` in it: their properties, and what of them is required."""
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in map(_merged, schema.get("allOf") or ()):
        properties = dict(merged.get("properties") or {})
        for name, one in (part.get("properties") or {}).items():
            other = properties.get(name, one)
            properties[name] = one if other == one else {"allOf": [other, one]}
        required = dict.fromkeys([*(merged.get("required") or ()), *(part.get("required") or ())])
        merged = {**part, **merged}
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = list(required)
    return merged


def _resolved(document: Mapping[str, Any], value: Any, depth: int = 0) -> Any:
    """Return a value with what it refers to within the document put in its place."""
    if depth > DEEPEST:
        raise ValueError("its schema refers to itself")
    if isinstance(value, list):
        return [_resolved(document, one, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(reference := value.get("$ref"), str):
        found: Any = document
        if not reference.startswith("#/"):
            raise ValueError(f"{reference!r} refers to another document")
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise ValueError(f"{reference!r} leads nowhere")
            found = found[key]
        return _resolved(document, found, depth + 1)
    return {key: _resolved(document, one, depth + 1) for key, one in value.items()}
