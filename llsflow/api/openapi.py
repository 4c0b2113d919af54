"""The published schema: what each operation takes and answers, and the records that it names."""

from __future__ import annotations

import importlib
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from llsflow.schema.base import Record

if TYPE_CHECKING:
    from fastapi import FastAPI

SCHEMAS = "#/components/schemas/"
MODULES = (
    "agents",
    "benchmarks",
    "datasets",
    "errors",
    "health",
    "inference",
    "jobs",
    "models",
    "pages",
    "rerank",
    "sampling",
    "scoring",
    "training",
)
"""Of llsflow.schema: where the records that operations name are looked up."""

DESCRIPTION = """\
Fine-tuning, evaluation and agents for language models, as in the Llama Stack API.

Every error has one body, `Error`. Unknown fields of a body are ignored, and named in the header `X-Ignored-Fields`.
"""

ERRORS = {
    "BadRequest400": (400, "Bad Request", "purpose: found 'training', allowed: one of post-training/messages, …"),
    "TooManyRequests429": (429, "Too Many Requests", "more than 600 requests in a minute: wait 0.1 seconds"),
    "InternalServerError500": (500, "Internal Server Error", "something went wrong here; the log has it as 5f3a"),
    "DefaultError": (404, "Not Found", "no data set 'dates'"),
}
"""What every operation may answer instead, by the names of the specification."""


def published(
    gives: type[Record] | str | None = None,
    *,
    takes: type[Record] | str | None = None,
    query: dict[str, dict[str, Any]] | None = None,
    events: str | None = None,
    says: str = "Successful Response",
    status: int = 200,
) -> dict[str, Any]:
    """Return what FastAPI needs to know to publish an operation.

    Args:
        gives: the record that it answers with; a name where importing it would cost start-up.
        takes: the record of the body.
        query: the schema of each parameter of the query, with `required` where it is.
        events: the record of each event, where the answer may be a stream of them.
        says: what the answer is, in words.
        status: of the answer.
    """
    extra: dict[str, Any] = {}
    if takes:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _reference(takes)}}}
    if query:
        extra["parameters"] = [_parameter(name, dict(schema)) for name, schema in query.items()]
    content = {"application/json": {"schema": _reference(gives)}} if gives else {}
    if events:
        content["text/event-stream"] = {"schema": _reference(events)}
    responses: dict[int | str, dict[str, Any]] = {status: {"content": content} if content else {}}
    for name, (code, title, _) in ERRORS.items():
        key = "default" if name == "DefaultError" else code
        responses[key] = {"$ref": f"#/components/responses/{name}", "description": title}
    return {
        "status_code": status,
        "responses": responses,
        "response_description": says,
        "openapi_extra": extra,
    }


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an app, whose operations are described by `published`."""
    from fastapi.openapi.utils import get_openapi

    from llsflow.api.examples import EXAMPLES, MEANINGS, PARAMETERS

    document = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, openapi_version="3.1.0", routes=app.routes
    )
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation.setdefault("tags", [_tag(path)])
            name = operation["operationId"].partition(f"_{path.split('/')[1]}_")[0]
            _illustrate(operation, PARAMETERS, *EXAMPLES[name])
            _explain(operation, MEANINGS)
    components = document.setdefault("components", {})
    components["responses"] = {name: _error(*said) for name, said in ERRORS.items()}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    # none is needed on loopback
    document["security"] = [{}, {"key": []}]
    components["schemas"] = _schemas(set(re.findall(rf'"{SCHEMAS}(\w+)"', json.dumps(document))))
    return document


def _tag(path: str) -> str:
    return {"v1beta": "V1Beta", "v1alpha": "V1Alpha"}.get(path.split("/")[1], "V1")


def _reference(record: type[Record] | str) -> dict[str, str]:
    return {"$ref": SCHEMAS + (record if isinstance(record, str) else record.__name__)}


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    required, description = schema.pop("required", False), schema.pop("description", None)
    said = {"description": description} if description else {}
    return {"name": name, "in": "query", "required": required, **said, "schema": {"title": name, **schema}}


def _error(code: int, title: str, detail: str) -> dict[str, Any]:
    example = {"status": code, "title": title, "detail": detail, "instance": "/v1beta/datasets"}
    content = {"application/json": {"schema": _reference("Error"), "example": example}}
    return {"description": title, "content": content}


def _illustrate(operation: dict[str, Any], parameters: dict[str, Any], body: Any, answer: Any) -> None:
    if "requestBody" in operation:
        operation["requestBody"]["content"]["application/json"]["example"] = body
    for parameter in operation.get("parameters", ()):
        parameter["example"] = parameters[parameter["name"]]
    for response in operation["responses"].values():
        content = response.get("content", {}).get("application/json")
        if content is not None:
            content["example"] = answer


def _explain(operation: dict[str, Any], meanings: dict[str, str]) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["description"] = meanings[parameter["name"]]


def _schemas(names: set[str]) -> dict[str, Any]:
    from pydantic.json_schema import models_json_schema

    found = {}
    for module in MODULES:
        records = vars(importlib.import_module(f"llsflow.schema.{module}"))
        found.update({name: records[name] for name in names if name in records})
    models: list[tuple[type[Record], Literal["validation"]]] = [(found[name], "validation") for name in sorted(names)]
    _, definitions = models_json_schema(models, ref_template=SCHEMAS + "{model}")
    schemas: dict[str, Any] = definitions["$defs"]
    for schema in schemas.values():
        # fields that are not known are ignored, not refused
        if schema.get("additionalProperties") is False:
            del schema["additionalProperties"]
    return dict(sorted(schemas.items()))
