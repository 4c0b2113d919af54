"""The published schema: valid, everything that the specification names, and examples that its own records take."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from llsflow.api.app import RESOURCES, create_app
from llsflow.api.deps import Services
from llsflow.api.examples import EXAMPLES
from llsflow.api.openapi import MODULES, openapi
from llsflow.schema.base import Record

CONTRACT = json.loads((Path(__file__).parent / "contract.json").read_text("utf-8"))


@pytest.fixture
def document(services: Services) -> dict[str, Any]:
    """The schema as served."""
    return openapi(create_app(services))


@pytest.fixture
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation by its id, with its path and method."""
    return {
        operation["operationId"]: {**operation, "path": path, "method": method}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_it_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document)


def test_every_operation_of_the_specification_is_there(operations: dict[str, dict[str, Any]]) -> None:
    assert len(CONTRACT["operations"]) == 34
    for name, wanted in CONTRACT["operations"].items():
        found = operations[name]
        assert (found["path"], found["method"], found["tags"]) == (wanted["path"], wanted["method"], [wanted["tag"]])
        parameters = [f"{p['in']} {p['name']}{'*' if p['required'] else ''}" for p in found.get("parameters", [])]
        assert sorted(parameters) == wanted["parameters"]
        assert _named(found.get("requestBody", {}).get("content", {})).get("application/json") == wanted["takes"]
        assert {wanted["status"], "400", "429", "500", "default"} == set(found["responses"])
        given = _named(found["responses"][wanted["status"]].get("content", {}))
        # what the specification leaves untyped may be told
        untyped = {kind for kind, record in wanted["gives"].items() if record is None}
        assert {**given, **dict.fromkeys(untyped)} == wanted["gives"]


BEYOND = {"DatasetPurpose": ["eval/rerank"]}
"""What enumerations allow that the specification has no word for."""


def test_every_record_of_the_specification_is_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert len(CONTRACT["schemas"]) > 90
    for name, wanted in CONTRACT["schemas"].items():
        assert schemas[name].get("enum") == (wanted["enum"] + BEYOND.get(name, []) if "enum" in wanted else None), name
        assert set(wanted.get("properties", ())) <= set(schemas[name].get("properties", ())), name


def test_every_operation_has_an_example_that_its_records_take(operations: dict[str, dict[str, Any]]) -> None:
    for operation in operations.values():
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [answer.get("content", {}) for answer in operation["responses"].values()]
        for content in contents:
            kind = content.get("application/json", {})
            if record := kind.get("schema", {}).get("$ref"):
                _record(record.rpartition("/")[2]).model_validate(kind["example"])
        for parameter in operation.get("parameters", ()):
            assert parameter["example"] is not None
    assert set(EXAMPLES) == {re.split(r"_v1(?:alpha|beta)?_", name)[0] for name in operations}


def test_errors_are_the_one_record(document: dict[str, Any]) -> None:
    for answer in document["components"]["responses"].values():
        content = answer["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Error"}
        _record("Error").model_validate(content["example"])


def test_unknown_fields_are_not_forbidden(document: dict[str, Any]) -> None:
    assert '"additionalProperties": false' not in json.dumps(document)


def test_every_operation_says_what_it_does() -> None:
    for route in (route for router in RESOURCES for route in router.routes):
        assert route.endpoint.__doc__  # type: ignore[attr-defined]


def _named(content: dict[str, Any]) -> dict[str, str | None]:
    return {kind: one["schema"].get("$ref", "").rpartition("/")[2] or None for kind, one in content.items()}


def _record(name: str) -> type[Record]:
    modules = [importlib.import_module(f"llsflow.schema.{module}") for module in MODULES]
    found: type[Record] = next(getattr(module, name) for module in modules if hasattr(module, name))
    return found
