"""Operations of an OpenAPI document as functions.

Source: spec.openapis.org/oas/v3.1.0, Paths Object, Operation Object, Parameter Object.
"""

from __future__ import annotations

import logging
import re
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
    left_out: list[Mistake] = []
    every = list(_operations(document, left_out))
    known = [operation_id for operation_id, *_ in every]
    found: dict[str, HttpFunction] = {}
    for operation_id, path, method, operation in every:
        if operations is not None and operation_id not in operations:
            continue
        try:
            if operation_id in found:
                raise ValueError("the operationId is there twice: this is the second of them")
            found[operation_id] = _function(document, operation_id, path, method, operation)
        except ValueError as error:
            left_out.append(Mistake("provider.openapi", f"{operation_id}: {error}"))
    # what is asked for by name has to be there
    mistakes = left_out if operations is not None or not found else []
    mistakes += [
        Mistake(f"provider.operations.{number}", f"no operationId {name!r}{or_known(name, known)}")
        for number, name in enumerate(operations or ())
        if name not in known
    ]
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


def _operations(
    document: Mapping[str, Any], left_out: list[Mistake]
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yield each operation with its name, path and method; one without an operationId is named by these."""
    for path, given in (document.get("paths") or {}).items():
        item = given
        if isinstance(given, dict) and "$ref" in given:
            try:
                item = _target(document, str(given["$ref"]))
            except ValueError as error:
                left_out.append(Mistake("provider.openapi", f"{path}: {error}"))
                continue
        for method in METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if isinstance(operation, dict):
                name = str(operation.get("operationId") or _name(method, str(path)))
                shared = item.get("parameters") or []
                yield (
                    name,
                    str(path),
                    method,
                    {**operation, "parameters": [*shared, *(operation.get("parameters") or [])]},
                )


def _name(method: str, path: str) -> str:
    """Return a name for an operation that has none: `get_orders_order_id`."""
    return "_".join((method, *re.findall(r"\w+", path)))


def _function(
    document: Mapping[str, Any], name: str, path: str, method: str, operation: Mapping[str, Any]
) -> HttpFunction:
    body = _body(document, operation)
    in_body = method not in ("get", "delete") or bool(body)
    # one of the operation stands for that of the path with its name and place
    given = {(one.get("name"), one.get("in")): one for one in _resolved(document, operation["parameters"])}
    for one in given.values():
        if one.get("in") not in ("path", "query") and one.get("required"):
            raise ValueError(f"the parameter {one.get('name')!r} goes into the {one.get('in')}")
    parameters = {str(one["name"]): one for one in given.values() if one.get("in") in ("path", "query")}
    for key, parameter in parameters.items():
        if why := _why_not_sent(parameter, method, in_body=in_body):
            raise ValueError(f"the parameter {key!r} {why}")
    clash = sorted({*parameters} & {*body.get("properties", ())})
    if clash:
        raise ValueError(f"{', '.join(clash)} is both a parameter and in the body")
    properties = {key: {**(one.get("schema") or {}), **_described(one)} for key, one in parameters.items()}
    schema = {
        "type": "object",
        "properties": {**properties, **body.get("properties", {})},
        "required": [*(key for key, one in parameters.items() if one.get("required")), *body.get("required", ())],
        "additionalProperties": body.get("additionalProperties", False),
    }
    if str(document["openapi"]).startswith("3.0"):
        schema = _modern(schema)
    described = " ".join(str(operation[key]) for key in ("summary", "description") if operation.get(key))
    asked = {key: one for key, one in parameters.items() if one["in"] == "query"}
    joints = {key: joint for key, one in asked.items() if (joint := _joint(one))}
    objects = {
        key: "deepObject" if one.get("style") == "deepObject" else "properties"
        for key, one in asked.items()
        if key not in joints
    }
    said = {"name": name, "description": described, "method": method.upper(), "path": path, "input_schema": schema}
    return HttpFunction.model_validate({**said, "joined": joints, "objects": objects, "in_body": in_body})


def _why_not_sent(parameter: Mapping[str, Any], method: str, *, in_body: bool) -> str | None:
    """Return why a parameter of the path or the query cannot be sent; None: it can."""
    if parameter["in"] == "query" and in_body:
        return f"goes into the query of a {method.upper()} with a body"
    if parameter["in"] == "path" and parameter.get("style", "simple") != "simple":
        return f"goes into the path in the style {parameter['style']}"
    if "schema" not in parameter and parameter.get("content"):
        return "is described by `content`"
    return None


def _modern(schema: Any) -> Any:
    """Return a schema of OpenAPI 3.0 as JSON Schema has it.

    Source: openapis.org/blog/2021/02/16/migrating-from-openapi-3-0-to-3-1-0, nullable and the exclusive limits.
    """
    if isinstance(schema, list):
        return [_modern(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _modern(value) for key, value in schema.items()}
    for limit in ("minimum", "maximum"):
        exclusive = f"exclusive{limit.capitalize()}"
        if made.get(exclusive) is True and limit in made:
            made[exclusive] = made.pop(limit)
        elif isinstance(made.get(exclusive), bool):
            del made[exclusive]
    if made.pop("nullable", None) is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    return made


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
        return _resolved(document, _target(document, reference), depth + 1)
    return {key: _resolved(document, one, depth + 1) for key, one in value.items()}


def _target(document: Mapping[str, Any], reference: str) -> Any:
    """Return what a reference leads to within the document."""
    found: Any = document
    if not reference.startswith("#/"):
        raise ValueError(f"{reference!r} refers to another document")
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"{reference!r} leads nowhere")
        found = found[key]
    return found
