"""The docstrings below a record's fields: what a published schema says of each."""

from __future__ import annotations

import ast
import functools
import inspect
import sys

from pydantic import BaseModel


def field_docstrings(record: type[BaseModel]) -> dict[str, str]:
    """Return the text below each field of a class, those of its bases first.

    Read from the source when a schema is asked for: pydantic would read it whenever a record is imported, which costs
    every start of every command.
    """
    found: dict[str, str] = {}
    own = [base for base in record.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]
    for base in reversed(own):
        found.update(_of_module(base.__module__).get(base.__qualname__, {}))
    return found


@functools.cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    try:
        source = inspect.getsource(sys.modules[name])
    except (OSError, TypeError, KeyError):
        # no source lies beside the code: the schema says less
        return {}
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {node.name: _of_class(node) for node in classes}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
            found[field.target.id] = inspect.cleandoc(text)
    return found
