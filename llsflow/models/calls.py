"""The tool calls of a streamed answer, put together from their parts as servers differ in sending them.

Source: platform.openai.com/docs/api-reference/chat-streaming, delta.tool_calls. Beside it: servers that number every
call 0 or not at all, repeat a call's name and id with each part, give calls no id, or all of them the same one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.schema.inference import ToolCall


def new_call_id() -> str:
    """Return an id for a call: nine letters and digits, which is all that Mistral's servers take."""
    return uuid.uuid4().hex[:9]


def arguments_of(text: str) -> dict[str, Any] | None:
    """Return the arguments of a call; None: they are no JSON object, nor a JSON text that holds one.

    Numbers that JSON does not have (NaN, Infinity) make it none: strict servers refuse them.
    """
    try:
        found = json.loads(text.strip() or "{}", parse_constant=_no_number)
        if isinstance(found, str):
            found = json.loads(found, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def arguments_sent(text: str) -> str:
    """Return a call's arguments as endpoints take them back: a JSON object, `{}` where the model's were none."""
    found = arguments_of(text)
    if found is None:
        return "{}"
    return text if text.lstrip().startswith("{") else json.dumps(found, ensure_ascii=False)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


@dataclass
class _Call:
    """A call, as far as it has come."""

    index: object
    """Its place, as the server counts; None: it does not."""
    call_id: str
    """Empty: the server has given none."""
    name: str
    arguments: str
    is_named_again: bool = False
    """Whether its name has come once more after its arguments were whole: as that of the next call."""

    @property
    def is_empty(self) -> bool:
        """Whether its arguments are none so far: an empty object may stand for those that are to come."""
        return self.arguments.strip() in ("", "{}")

    @property
    def is_whole(self) -> bool:
        return bool(self.arguments.strip()) and arguments_of(self.arguments) is not None

    def add(self, part: _Part) -> str:
        """Take a further part in, and return what is new of it."""
        self.call_id = self.call_id or part.call_id
        name = ""
        if part.name != self.name:
            # a name in pieces, or one that grows with each part
            name = part.name.removeprefix(self.name)
            self.name += name
        if part.is_repetition_of(self):
            return name
        if not part.has_arguments:
            self.is_named_again = bool(part.name) and self.is_whole
        if part.begins_arguments and self.is_empty:
            self.arguments = ""
        self.arguments += part.arguments
        return name + part.arguments


@dataclass(frozen=True)
class _Part:
    """A part of a call."""

    index: object
    call_id: str
    name: str
    arguments: str
    is_typed: bool
    """Whether it says that it is a function, as the first part of a call does."""

    @staticmethod
    def of(told: Mapping[str, Any]) -> _Part:
        function = told.get("function") or {}
        arguments = function.get("arguments")
        return _Part(
            index=told.get("index"),
            call_id=str(told.get("id") or ""),
            name=str(function.get("name") or ""),
            # some servers send an object instead of its JSON
            arguments=arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments),
            is_typed=bool(told.get("type")),
        )

    @property
    def has_arguments(self) -> bool:
        return bool(self.arguments.strip())

    @property
    def begins_arguments(self) -> bool:
        return self.arguments.lstrip().startswith("{")

    def is_repetition_of(self, call: _Call) -> bool:
        """Return whether it says again what the call has said whole."""
        same = bool(self.call_id) and self.call_id == call.call_id
        return same and bool(self.name) and call.is_whole and self.arguments.strip() == call.arguments.strip()

    def begins_behind(self, last: _Call, *, in_same_event: bool) -> bool:
        """Return whether it begins a new call, and is no more of the last one at its place."""
        if not last.name or not (self.name or self.has_arguments):
            return False
        is_same_id = bool(self.call_id) and self.call_id == last.call_id
        if self.call_id and last.call_id and not is_same_id:
            # some servers give each part of a call an id of its own
            goes_on = self.name in ("", last.name) and self.has_arguments and not self.begins_arguments
            return last.is_whole or (bool(self.name) and not (goes_on and bool(last.arguments.strip())))
        if not self.name:
            again = last.is_named_again or self.arguments.strip() != last.arguments.strip()
            return last.is_whole and not last.is_empty and self.begins_arguments and again
        if in_same_event and not is_same_id:
            return True
        if self.name != last.name:
            return bool(last.arguments.strip()) or (self.is_typed and not is_same_id)
        if is_same_id and last.is_empty:
            return False
        return last.is_whole and self.has_arguments and not self.is_repetition_of(last)


class Calls:
    """The calls of one answer."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        """Return whether there is one."""
        return bool(self._calls)

    def take(self, told: object) -> str:
        """Take the parts of one event in, and return the text of what is new.

        Raises:
            AttributeError, TypeError: they are none of the protocol's.
        """
        parts = [_Part.of(one) for one in ([told] if isinstance(told, Mapping) else _listed(told))]
        begun: list[_Call] = []
        return "".join(self._add(part, begun) for part in parts)

    def _add(self, part: _Part, begun: list[_Call]) -> str:
        here = [call for call in self._calls if part.index is None or call.index == part.index]
        same = [call for call in here if part.call_id and call.call_id == part.call_id]
        last = (same or here)[-1] if here else None
        if last is None or part.begins_behind(last, in_same_event=any(last is one for one in begun)):
            name = part.name or (last.name if last else "")
            call = _Call(part.index, part.call_id, name, part.arguments)
            self._calls.append(call)
            begun.append(call)
            return name + part.arguments
        return last.add(part)

    def all(self, names: Mapping[str, str], taken: Iterable[str] = ()) -> list[ToolCall]:
        """Return the calls, each with an id that no other has.

        Args:
            names: tools by what they are called at the endpoint; others keep their names.
            taken: ids of earlier calls.
        """
        seen = set(taken)
        found: list[ToolCall] = []
        for call in self._calls:
            call_id = call.call_id if call.call_id and call.call_id not in seen else new_call_id()
            seen.add(call_id)
            arguments = call.arguments if arguments_of(call.arguments) is None else arguments_sent(call.arguments)
            found.append(ToolCall(call_id=call_id, tool_name=names.get(call.name, call.name), arguments=arguments))
        return found


def _listed(told: object) -> Sequence[Mapping[str, Any]]:
    if told is None:
        return ()
    if not isinstance(told, list):
        raise TypeError("tool_calls is no list")
    return told
