"""Whether calls are those of a ground truth: names, parameters, types and accepted values.

Source: the rules of BFCL's AST check (github.com/ShishirPatil/gorilla, berkeley-function-call-leaderboard). Ours differ
in four things: values in values are compared in the same way at any depth, an int is a float within a list too, a
boolean is never a number, and where a call fits two of the ground truth's the one that needs it has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.scorers.base import composed
from llsflow.scorers.bfcl.calls import Call
from llsflow.scorers.bfcl.literals import Source, UnknownValueError, value_of

TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("string", "str", "char", "character"), (str,)),
    **dict.fromkeys(("integer", "int", "byte", "short", "long", "bigint"), (int,)),
    **dict.fromkeys(("float", "double", "number"), (float, int)),
    **dict.fromkeys(("boolean", "bool"), (bool,)),
    **dict.fromkeys(("array", "list", "arraylist", "set", "queue", "stack"), (list,)),
    "tuple": (tuple, list),
    **dict.fromkeys(("dict", "object", "hashmap", "hashtable", "map"), (dict,)),
}
"""The types of parameters, in small letters; others, "any" among them, take every value. An int is a float too."""


@dataclass(frozen=True)
class Function:
    """A function that may be called."""

    name: str
    properties: Mapping[str, Any]
    """JSON schema of each parameter."""
    required: Sequence[str]

    @classmethod
    def of(cls, described: object) -> Function:
        """Return a function of its description, plain or below `function` as the OpenAI API has it.

        Raises:
            ValueError: it is no description.
        """
        if isinstance(described, Mapping) and isinstance(described.get("function"), Mapping):
            described = described["function"]
        if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
            raise ValueError("function holds what is no description with a name")
        parameters = described.get("parameters") or {}
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        required = parameters.get("required") if isinstance(parameters, Mapping) else None
        return cls(described["name"], properties or {}, required or ())


def match_calls(
    functions: Mapping[str, Function],
    calls: Sequence[Call],
    wanted: Sequence[tuple[str, Mapping[str, Any]]],
    language: str,
) -> str | None:
    """Return why the calls are not the wanted ones, in whatever order; None: they are.

    Raises:
        ValueError: the ground truth names a function that is not described.
        UnknownValueError: all depends on a value that cannot be read.
    """
    for name, _ in wanted:
        if name not in functions:
            raise ValueError(f"ground_truth calls {name}, which function does not describe")
    if len(calls) != len(wanted):
        return f"{len(calls)} calls, where {len(wanted)} are right"
    found = [[_compared(functions[name], call, accepted, language) for call in calls] for name, accepted in wanted]
    fits = [[index for index, why in enumerate(one) if why is None] for one in found]
    if _every_one_served(fits):
        return None
    for why in (why for one in found for why in one):
        if isinstance(why, UnknownValueError):
            raise why
    # the most telling one: of a call that nothing serves, what is wrong with a call of the same name
    for (name, _), one in zip(wanted, found, strict=True):
        if None not in one:
            same = [why for call, why in zip(calls, one, strict=True) if _names(call, functions[name])]
            return str((same or one)[0])
    return "two of the calls are the same one of the ground truth"


def _compared(
    function: Function, call: Call, accepted: Mapping[str, Any], language: str
) -> str | UnknownValueError | None:
    try:
        return check_call(function, call, accepted, language)
    except UnknownValueError as unknown:
        return unknown


def _every_one_served(fits: Sequence[Sequence[int]]) -> bool:
    """Return whether each can have one of its own (Kuhn's augmenting paths): taking the first that fits may not do."""
    holder: dict[int, int] = {}

    def serve(one: int, tried: set[int]) -> bool:
        for index in fits[one]:
            if index not in tried:
                tried.add(index)
                if index not in holder or serve(holder[index], tried):
                    holder[index] = one
                    return True
        return False

    return all(serve(one, set()) for one in range(len(fits)))


def check_call(function: Function, call: Call, accepted: Mapping[str, Any], language: str) -> str | None:
    """Return why a call is not the accepted one; None: it is.

    Raises:
        UnknownValueError: it depends on a value that cannot be read.
    """
    if not _names(call, function):
        return f"calls {call.name}, where {function.name} is right"
    missing = [name for name in function.required if name not in call.arguments]
    missing += [name for name, values in accepted.items() if name not in call.arguments and "" not in _listed(values)]
    if missing:
        return f"{function.name} lacks {missing[0]}"
    for name, given in call.arguments.items():
        if name not in function.properties or name not in accepted:
            return f"{function.name} takes no {name}"
        schema = function.properties[name]
        schema = schema if isinstance(schema, Mapping) else {}
        if not _accepted(given, _listed(accepted[name]), schema, language):
            return (
                f"{name} of {function.name} is {given!r} ({schema.get('type', 'any')}): accepted are {accepted[name]!r}"
            )
    return None


def _names(call: Call, function: Function) -> bool:
    # names in the OpenAI API have no dots
    return call.name in (function.name, function.name.replace(".", "_"))


def _listed(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list) else [values]


def _accepted(given: Any, values: Sequence[Any], schema: Mapping[str, Any], language: str) -> bool:
    if not isinstance(given, Source):
        if language != "python" and isinstance(given, str) and _types(schema) not in ((), (str,)):
            return _accepted(Source(given), values, schema, language)  # JSON holds the source of a list, say
        return any(_equal(given, value, schema) for value in values)
    if any(isinstance(value, str) and value and _bare(value) == _bare(given) for value in values):
        return True  # the ground truth holds code of its own
    if _types(schema) == (str,) and given[:1] not in ("'", '"', "`"):
        return any(_equal(str(given), value, schema) for value in values)
    try:
        read = value_of(given, language)
    except ValueError:
        return False
    return any(_equal(read, value, schema) for value in values)


def _bare(text: str) -> str:
    return re.sub(r"\s", "", text)


def _types(schema: Mapping[str, Any]) -> tuple[type, ...]:
    return TYPES.get(str(schema.get("type", "any")).lower(), ())


def _equal(given: Any, value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a value is an accepted one, and of the type that its schema says."""
    types = _types(schema)
    if types and not isinstance(value, types) and value != "":
        # a variable, by its name as it is; or a schema that is wrong, where the ground truth decides
        return type(given) is type(value) and given == value
    if types and not isinstance(given, types):
        return False
    if value == "" and isinstance(given, list):
        return not given  # an empty list is as good as none, where it may be left out
    if isinstance(given, bool) or isinstance(value, bool):
        return given is value
    if isinstance(given, str) and isinstance(value, str):
        return standard(given) == standard(value)
    if isinstance(given, list | tuple) and isinstance(value, list):
        items = schema.get("items")
        inner = items if isinstance(items, Mapping) else {}
        return len(given) == len(value) and all(_equal(*pair, inner) for pair in zip(given, value, strict=True))
    if isinstance(given, Mapping) and isinstance(value, Mapping):
        return _equal_records(given, value)
    return bool(given == value)


def _equal_records(given: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    """Return whether each key's value is one of its accepted values, and no other is missing but with "" among them."""
    if not given.keys() <= accepted.keys():
        return False
    if any("" not in _listed(accepted[key]) for key in accepted.keys() - given.keys()):
        return False
    return all(any(_equal(one, value, {}) for value in _listed(accepted[key])) for key, one in given.items())


def standard(text: str) -> str:
    """Return a text in composed form, without blanks, capitals and the marks , . / - _ * ^; with one kind of quotes."""
    return re.sub(r"[ ,./\-_*^]", "", composed(text)).lower().replace("'", '"')
