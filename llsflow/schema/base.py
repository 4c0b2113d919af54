"""The base of every record, and the scalar types that YAML and HTTP share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints

from llsflow.schema.docstrings import field_docstrings

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

Int = Annotated[int, Strict()]
"""An integer as written: never a string, a boolean or 1.0."""

PositiveInt = Annotated[int, Strict(), Field(ge=1)]
NonNegativeInt = Annotated[int, Strict(), Field(ge=0)]
Bool = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), StringConstraints(min_length=1)]
Identifier = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*(/[A-Za-z0-9][A-Za-z0-9._:\-]*)*$", max_length=200),
]
"""A name that can stand in a URL, a file name and MLflow; of `..` and empty parts a URL would lose some on its way."""


class Record(BaseModel):
    """A checked, frozen node of YAML or of an HTTP body; unknown keys are an error unless the call says else.

    HTTP validates with `model_validate(body, extra="ignore")`, YAML with the default. Its validator is built at its
    first use: no process uses every kind, and building them all is a third of the API's start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the record's JSON schema, with the docstring below each field as its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docstrings(cls).items():
            properties.get(name, {}).setdefault("description", text)
        return schema
