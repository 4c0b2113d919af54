"""Function calls as a model writes them: in Python, Java, JavaScript or JSON; parsed, never run."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llsflow.scorers.bfcl.literals import Source, split

LANGUAGES = ("python", "java", "javascript")
LONGEST = 20_000
"""Characters of an answer that are read."""


class UnreadableError(Exception):
    """A text is no list of function calls; the text of the error says what it is."""


@dataclass(frozen=True)
class Call:
    """A call: what is called, with named arguments."""

    name: str
    arguments: Mapping[str, Any]
    """Values; a text that is code, such as a variable's name, stands as a text too. Source: not converted yet."""


def read_calls(text: str, language: str) -> list[Call]:
    """Return the calls of an answer.

    Fences of markdown around it and the brackets of its list may be there or not.

    Raises:
        UnreadableError: it is anything else.
    """
    inner = re.sub(r"^```\w*\s|```$", "", text.strip("\n ")).strip("`\n ")
    if len(inner) > LONGEST:
        raise UnreadableError(f"it has {len(inner):,} characters")
    if (found := _json_calls(inner)) is not None:
        return found
    return _python_calls(inner) if language == "python" else _other_calls(inner)


def _json_calls(text: str) -> list[Call] | None:
    if text[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [_json_call(item) for item in (value if isinstance(value, list) else [value])]


def _json_call(item: object) -> Call:
    """`{name, arguments}`, the same below `function`, or `{name: arguments}`; arguments may be JSON once more."""
    if isinstance(item, Mapping) and isinstance(item.get("function"), Mapping):
        item = item["function"]
    if not isinstance(item, Mapping):
        raise UnreadableError(f"{str(item)[:40]!r} is no call")
    name: object
    if isinstance(item.get("name"), str):
        name, arguments = item["name"], item.get("arguments", item.get("parameters", {}))
    elif len(item) == 1:
        name, arguments = next(iter(item.items()))
    else:
        raise UnreadableError("an object without a name is no call")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise UnreadableError(f"the arguments of {name} are a text that is no JSON") from None
    if not isinstance(arguments, Mapping):
        raise UnreadableError(f"the arguments of {name} are no object")
    return Call(str(name), arguments)


def _python_calls(text: str) -> list[Call]:
    listed = text if text.startswith("[") else f"[{text}]"
    try:
        body = ast.parse(listed.strip(), mode="eval").body
        nodes = body.elts if isinstance(body, ast.List) else [body]
        return [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"it is no Python ({str(error)[:80]})") from error


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise UnreadableError(f"{ast.unparse(node)[:40]!r} is no call")
    arguments: dict[str, Any] = {}
    for argument in node.args:
        if not isinstance(argument, ast.Dict):
            raise UnreadableError(f"{ast.unparse(argument)[:40]!r} has no parameter's name before it")
        arguments |= _named(argument)
    for keyword in node.keywords:
        if keyword.arg in arguments:
            raise UnreadableError(f"{keyword.arg} stands twice")
        if keyword.arg is not None:
            arguments[keyword.arg] = _python_value(keyword.value)
        elif isinstance(keyword.value, ast.Dict):
            arguments |= _named(keyword.value)
        else:
            raise UnreadableError(f"'**{ast.unparse(keyword.value)[:40]}' names no parameters")
    return Call(ast.unparse(node.func), arguments)


def _named(node: ast.Dict) -> dict[str, Any]:
    """Return the arguments that a dict in their place holds."""
    return {str(name): value for name, value in _python_dict(node).items()}


def _python_dict(node: ast.Dict) -> dict[Any, Any]:
    found = {}
    for key, value in zip(node.keys, node.values, strict=True):
        name = None if key is None else _python_value(key)
        if key is None or isinstance(name, list | dict):
            raise UnreadableError(f"{ast.unparse(node)[:40]!r} has a key that is no value")
        found[name] = _python_value(value)
    return found


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _python_value(node: ast.expr) -> Any:
    """Return a literal's value, and the source of anything else: a variable is compared by its name."""
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None):
            return node.value
        case ast.List():
            return [_python_value(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_python_value(item) for item in node.elts)
        case ast.Dict():
            return _python_dict(node)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            value = _python_value(node.operand)
            if _is_number(value):
                return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            left, right = _python_value(node.left), _python_value(node.right)
            if _is_number(left) and _is_number(right) and not (isinstance(node.op, ast.Div) and right == 0):
                return _ARITHMETIC[type(node.op)](left, right)
        case ast.Call() if node.keywords:
            call = _python_call(node)
            return {call.name: call.arguments}
    return ast.unparse(node)


def _is_number(value: object) -> bool:
    # within what arithmetic is exact: products of numbers with thousands of digits are nobody's arguments
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


_CALL = re.compile(r"(?:await\s+|new\s+)?(?P<name>[A-Za-z_$][\w$]*(?:\s*\.\s*[A-Za-z_$][\w$]*)*)\s*\(", re.ASCII)
_ARGUMENT = re.compile(r"(?P<name>[A-Za-z_$][\w$]*)\s*[=:](?!=)\s*(?P<value>.*)", re.ASCII | re.DOTALL)


def _other_calls(text: str) -> list[Call]:
    """Return calls of Java or JavaScript: `name(parameter = value, …)`, the values as they stand."""
    listed = text.strip().rstrip(";").rstrip()
    if listed.startswith("[") and listed.endswith("]"):
        listed = listed[1:-1]
    return [_other_call(part) for part in _split(listed.strip().rstrip(";"))]


def _other_call(text: str) -> Call:
    text = text.strip().rstrip(";").rstrip()
    found = _CALL.match(text)
    if found is None or not text.endswith(")"):
        raise UnreadableError(f"{text[:40]!r} is no call")
    arguments: dict[str, Any] = {}
    for part in _split(text[found.end() : -1]):
        argument = _ARGUMENT.fullmatch(part.strip())
        if argument is None:
            raise UnreadableError(f"{part.strip()[:40]!r} has no parameter's name before it")
        if argument["name"] in arguments:
            raise UnreadableError(f"{argument['name']} stands twice")
        arguments[argument["name"]] = Source(argument["value"].strip())
    return Call(re.sub(r"\s", "", found["name"]), arguments)


def _split(text: str) -> list[str]:
    try:
        return split(text)
    except ValueError as error:
        raise UnreadableError(str(error)) from error
