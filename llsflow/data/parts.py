"""What a row holds beside its messages: tools, documents and variables of the chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llsflow.data.values import refuse_half_characters
from llsflow.schema.variables import check_variables


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is no number there; write null")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice in one object, and only one of them can count: remove one")
    return found


DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
"""Reads JSON and nothing else: no NaN, and no key twice."""


def kind_of(value: object) -> str:
    """Return how a message names what was found."""
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def json_of(value: Any, where: str, wanted: str) -> Any:
    """Return a value, or what it holds where it is the JSON of it, as a cell of a CSV file must be.

    Raises:
        ValueError: a text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        found = DECODER.decode(value)
    except (json.JSONDecodeError, RecursionError):
        if not value.lstrip().startswith(("[", "{")):
            raise ValueError(f"{where} is {kind_of(value)}: {wanted} is needed") from None
        raise ValueError(f"{where} is text, but not JSON: {wanted}, or its JSON, is needed") from None
    except ValueError as error:
        raise ValueError(f"{where} is text, but {error}") from None
    if "\\ud" in value:
        refuse_half_characters(found, where)
    return found


def objects_of(value: Any, where: str, wanted: str) -> list[Mapping[str, Any]]:
    """Return a list of objects, or of its JSON.

    Raises:
        ValueError: it is something else, with its place.
    """
    found = json_of(value, where, wanted)
    if not isinstance(found, list):
        raise ValueError(f"{where} is {kind_of(found)}: {wanted} is needed")
    for place, item in enumerate(found):
        if not isinstance(item, Mapping):
            raise ValueError(f"{where}[{place}] is {kind_of(item)}: an object is needed")
    return found


def tools_of(row: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """Return the tools of a row or request as `{type: function, function: {name, …}}`; a bare function is wrapped.

    Raises:
        ValueError: something that is no tool, with its place.
    """
    if row.get(column) in (None, ""):
        return []
    tools = []
    for place, item in enumerate(objects_of(row[column], column, "a list of tools")):
        tool = dict(item) if "function" in item else {"type": "function", "function": dict(item)}
        function = tool["function"]
        if tool.get("type", "function") != "function":
            raise ValueError(f"{column}[{place}].type is {tool['type']!r}: allowed is function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError(
                f"{column}[{place}].function.name is missing: a tool has {{name, description, parameters}}"
            )
        tools.append(tool)
    return tools


def documents_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the documents of a row.

    Raises:
        ValueError: something that is no document, with its place.
    """
    if row.get("documents") in (None, ""):
        return []
    return [dict(item) for item in objects_of(row["documents"], "documents", "a list of {title, text}")]


def template_kwargs_of(row: Mapping[str, Any], column: str = "chat_template_kwargs") -> dict[str, Any]:
    """Return the chat template's variables of a row or request.

    Raises:
        ValueError: it is no object, or names what is not for the row to say.
    """
    if row.get(column) in (None, ""):
        return {}
    found = json_of(row[column], column, "an object")
    if not isinstance(found, Mapping):
        raise ValueError(f"{column} is {kind_of(found)}: an object is needed")
    check_variables(found, column)
    return dict(found)
