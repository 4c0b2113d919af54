"""The one shape that every row format becomes: a conversation, with the answer last."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypedDict

from llsflow.data.parts import documents_of, json_of, kind_of, objects_of, template_kwargs_of, tools_of

Row = Mapping[str, Any]


class Function(TypedDict):
    """What a call names, as chat templates take it."""

    name: str
    arguments: dict[str, Any]
    """By the arguments' names."""


class ToolCall(TypedDict, total=False):
    """A call of a tool, as chat templates take it."""

    id: str
    type: Required[Literal["function"]]
    function: Required[Function]


class Message(TypedDict, total=False):
    """One turn, as chat templates take it; `weight` goes to no template."""

    role: Required[Literal["system", "developer", "user", "assistant", "tool"]]
    content: str
    tool_calls: list[ToolCall]
    tool_call_id: str
    name: str
    reasoning_content: str
    reasoning: str
    thinking: str
    weight: int
    """0: this answer is not learned."""


Messages = list[Message]

ROLES = ("system", "developer", "user", "assistant", "tool")
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names under which data sets and templates have the reasoning before an answer."""
_CALLER_ONLY = ("tool_calls", *REASONING, "weight")
"""Parts that only an assistant's message has."""
_KNOWN = ("role", "content", "tool_calls", "tool_call_id", "name", *REASONING, "weight")
PARTS = ("tools", "functions", "documents", "chat_template_kwargs")
"""Columns of any row that chat templates read beside the messages."""

ANSWERS = frozenset({"answer", "expected_answer", "completion", "chosen", "rejected", "output"})
"""Columns that hold an answer: a row with one of them is read by a format that reads it, or by none."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, and what else a chat template is given to write them."""

    messages: Messages
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Functions that the model may call, as chat templates take them."""
    documents: list[dict[str, Any]] = field(default_factory=list)
    """What the answer is to be based on, for templates that write documents."""
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further variables of the chat template, for example enable_thinking."""

    def until(self, count: int) -> Conversation:
        """Return the conversation's first messages."""
        return dataclasses.replace(self, messages=self.messages[:count])

    def after(self, before: Sequence[Message]) -> Conversation:
        """Return the conversation after other messages."""
        return dataclasses.replace(self, messages=[*before, *self.messages]) if before else self

    @property
    def characters(self) -> int:
        """Return the length of all that the messages hold."""
        return sum(len(said(message)) + len(reasoning_of(message) or "") for message in self.messages)


def reasoning_of(message: Message) -> str | None:
    """Return the reasoning before an answer, by whichever of its names; None: there is none."""
    for name in REASONING:
        if (found := message.get(name)) is not None:
            return str(found)
    return None


def said(message: Message) -> str:
    """Return a message's text and the JSON of its calls, for people, for judges and to compare prompts."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    written = [json.dumps(call, ensure_ascii=False) for call in calls]
    return "\n".join(part for part in (message.get("content", ""), *written) if part)


def user(text: str) -> Message:
    """Return a user's message."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """Return an answer."""
    return Message(role="assistant", content=text)


@dataclass(frozen=True)
class RowFormat:
    """How rows with certain columns are read."""

    columns: tuple[str, ...]
    """A row that has all of them is read by this format; one that is null is not there."""
    learned: Callable[[Row], Messages | str]
    """Row -> messages that end with the assistant's answer, or a plain text; ValueError says what is wrong."""
    asked: Callable[[Row], tuple[Messages, str | None]]
    """Row -> what is asked, and the expected answer, None where there is none; ValueError says what is wrong."""
    turns: Callable[[Row], Messages] | None = None
    """Row -> all that it says, where that is more than one conversation; None: as `learned`."""
    asks: Callable[[Row], Messages] | None = None
    """Row -> what the model is given; None: all but the last turn of `learned`."""
    answered: bool = True
    """False: a row of this format has no answer, but further columns that scoring functions read."""
    optional: tuple[str, ...] = ()
    """Further columns that are read where they are there."""

    @functools.cached_property
    def _needed(self) -> frozenset[str]:
        return frozenset(self.columns)

    @functools.cached_property
    def reads(self) -> frozenset[str]:
        """Return every column that is read."""
        return frozenset((*self.columns, *self.optional, *PARTS))

    def fits(self, present: frozenset[str]) -> bool:
        """Return whether a row with these columns, null ones left out, is read by this format."""
        if not present >= self._needed:
            return False
        return self.answered or present.isdisjoint(ANSWERS)

    def training(self, row: Row) -> Conversation | str:
        """Return what is learned of a row: a conversation, or a plain text.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        made = self.learned(row)
        return made if isinstance(made, str) else with_parts(row, made)

    def question(self, row: Row) -> tuple[Conversation, str | None]:
        """Return what a row asks, and the expected answer, None where there is none.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        messages, expected = self.asked(row)
        return with_parts(row, messages), expected

    def read(self, row: Row) -> Conversation:
        """Return all turns of a row, whatever it will be used for.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        made = (self.turns or self.learned)(row)
        return with_parts(row, [assistant(made)] if isinstance(made, str) else made)

    def prompt(self, row: Row) -> Messages:
        """Return what the model is given of a row, before it answers.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        return self.prompts(row)[-1]

    def prompts(self, row: Row) -> list[Messages]:
        """Return what the model is given before each answer that it learns of a row; at least one.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        if self.asks:
            return [self.asks(row)]
        made = self.learned(row)
        if isinstance(made, str):
            return [[user(made)]]
        answers = [place for place, turn in enumerate(made) if turn["role"] == "assistant" and turn.get("weight") != 0]
        return [made[:place] for place in answers] or [made]


def with_parts(row: Row, messages: Messages) -> Conversation:
    """Return the messages with the row's tools, documents and template variables.

    Raises:
        ValueError: one of them cannot be used.
    """
    if row.keys().isdisjoint(PARTS):
        return Conversation(messages)
    if row.get("tools") is not None and row.get("functions") is not None:
        raise ValueError("tools and functions are both there: they are two names of the same, keep one")
    tools = tools_of(row, "tools") or tools_of(row, "functions")
    return Conversation(messages, tools, documents_of(row), template_kwargs_of(row))


def unanswered(column: str, ask: Callable[[Row], Messages]) -> RowFormat:
    """Return the format of rows that ask and expect no certain answer: their other columns say what a good one is."""
    return RowFormat((column,), learned=ask, asked=lambda row: (ask(row), None), asks=ask, answered=False)


def text_of(row: Row, column: str, *, empty: bool = False) -> str:
    """Return a column that must hold text; `empty`: none of it is text, too.

    Raises:
        ValueError: it is missing, empty or of another type.
    """
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {kind_of(value)}: a text is needed")
    if not value and not empty:
        raise ValueError(f"{column} is empty: a text is needed")
    return value


def messages_of(row: Row, column: str = "messages") -> Messages:
    """Return a column that must hold a list of messages, or its JSON.

    Raises:
        ValueError: a message, role or content is not what a chat template takes, or a message has further parts.
    """
    value = json_of(row.get(column), column, "a list of messages")
    if not isinstance(value, list) or not value:
        raise ValueError(f"{column} is {kind_of(value)}: a list of messages is needed")
    return [message_of(item, f"{column}[{number}]") for number, item in enumerate(value)]


def holds_messages(value: object) -> bool:
    """Return whether a column that may hold a text or messages holds these, or the JSON of them."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
        items = value if isinstance(value, list) else []
        return bool(items) and all(isinstance(item, Mapping) and "role" in item for item in items)
    return isinstance(value, list)


def messages_or_text(row: Row, column: str, message: Callable[[str], Message], *, empty: bool = False) -> Messages:
    """Return a column that holds messages, or a text that is one.

    Args:
        row: the row.
        column: its name.
        message: makes one of the text.
        empty: whether the text may be empty.

    Raises:
        ValueError: it holds neither.
    """
    if holds_messages(row.get(column)):
        return messages_of(row, column)
    return [message(text_of(row, column, empty=empty))]


def message_of(item: object, where: str) -> Message:
    """Return a message of a row or request.

    Raises:
        ValueError: it is not what a chat template takes, with its place.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} is {kind_of(item)}: {{role, content}} is needed")
    role = item.get("role")
    if role == "function":  # what answers a function_call
        role = "tool"
    if role not in ROLES:
        raise ValueError(f"{where}.role is {role!r}: allowed are {', '.join(ROLES)}")
    # a frame of mixed rows has every part in each message: what is null or an empty list is not there
    given = {name: value for name, value in item.items() if value is not None and value != []}
    if "function_call" in given and "tool_calls" not in given:  # as the API had calls before it had several
        given["tool_calls"] = [given.pop("function_call")]
    if unknown := [name for name in given if name not in _KNOWN]:
        raise ValueError(
            f"{where}.{unknown[0]} is not read by any chat template here: remove it; a message has {', '.join(_KNOWN)}"
        )
    if role != "assistant" and (wrong := [name for name in _CALLER_ONLY if name in given]):
        raise ValueError(f"{where}.{wrong[0]} is for messages of role assistant, this one is of role {role}: remove it")
    message = Message(role=role)
    if "content" in given:
        message["content"] = _content(given["content"], f"{where}.content")
    elif item.get("content") == []:
        message["content"] = ""
    _add_call_parts(message, given, where)
    if "content" not in message and not message.get("tool_calls"):
        raise ValueError(f"{where}.content is missing: a text is needed")
    return message


def _add_call_parts(message: Message, given: Mapping[str, Any], where: str) -> None:
    """Add what a message has beside its content."""
    if "tool_calls" in given:
        calls = objects_of(given["tool_calls"], f"{where}.tool_calls", "a list of calls")
        message["tool_calls"] = [_call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)]
    for name in ("tool_call_id", "name"):
        if name in given:
            message[name] = _text(given[name], f"{where}.{name}")
    reasoning = [name for name in REASONING if name in given]
    if len({given[name] for name in reasoning if isinstance(given[name], str)}) > 1:
        raise ValueError(f"{where}: {' and '.join(reasoning)} are names of the same and differ: keep one")
    for name in reasoning:
        message[name] = _text(given[name], f"{where}.{name}")  # type: ignore[literal-required]
    if "weight" in given:
        if given["weight"] not in (0, 1):
            raise ValueError(f"{where}.weight is {given['weight']!r}: allowed are 0 (not learned) and 1")
        message["weight"] = int(given["weight"])


def _call(item: Mapping[str, Any], where: str) -> ToolCall:
    """Read a call: `{id, type, function: {name, arguments}}`, or the function alone."""
    given = {name: value for name, value in item.items() if value is not None}
    function = given.get("function")
    if function is None and "name" in given:
        function = {name: given.pop(name) for name in ("name", "arguments") if name in given}
    else:
        given.pop("function", None)
    if unknown := [name for name in given if name not in ("id", "type")]:
        raise ValueError(f"{where}.{unknown[0]} is not read: a call has id, type and function")
    if given.get("type", "function") != "function":
        raise ValueError(f"{where}.type is {given['type']!r}: allowed is function")
    if not isinstance(function, Mapping):
        raise ValueError(f"{where}.function is {kind_of(function)}: {{name, arguments}} is needed")
    if unknown := [name for name in function if name not in ("name", "arguments") and function[name] is not None]:
        raise ValueError(f"{where}.function.{unknown[0]} is not read: a function has name and arguments")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}.function.name is {kind_of(name)}: a text is needed")
    arguments = json_of(function.get("arguments") or {}, f"{where}.function.arguments", "an object")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where}.function.arguments is {kind_of(arguments)}: an object, or its JSON, is needed")
    called = Function(name=name, arguments=dict(arguments))
    if "id" in given:
        return ToolCall(id=_text(given["id"], f"{where}.id"), type="function", function=called)
    return ToolCall(type="function", function=called)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is {kind_of(value)}: a text is needed")
    return value


def _content(value: object, where: str) -> str:
    """Content is a text, or the spec's list of parts of type text."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            found = f"a part of type {part.get('type')!r}" if isinstance(part, Mapping) else kind_of(part)
            raise ValueError(f"{where} is {found}: a text is needed")
        texts.append(part["text"])
    return "".join(texts)
