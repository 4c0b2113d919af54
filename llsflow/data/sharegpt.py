"""Rows as ShareGPT has them: `conversations`, each turn with `from` and `value`.

Source: the format of the Vicuna data, with the roles that later data sets added for calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llsflow.data.conversation import Message, Messages, Row, RowFormat, message_of, text_of
from llsflow.data.messages import asked, learnable
from llsflow.data.pairs import refuse_label
from llsflow.data.parts import json_of, objects_of

_ROLES: Mapping[str, str] = {
    **{"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"},
    **{"chatgpt": "assistant", "model": "assistant", "tool": "tool", "observation": "tool", "function": "tool"},
}
_CALLS = ("function_call", "tool_call")
"""Turns that are calls: the JSON of `{name, arguments}`, or of a list of these."""


def _messages(row: Row) -> Messages:
    """Return the turns, after the `system` column where there is one.

    Raises:
        ValueError: a turn that cannot be read, with its place.
    """
    turns = objects_of(row["conversations"], "conversations", "a list of {from, value}")
    if not turns:
        raise ValueError("conversations is an empty list: a list of {from, value} is needed")
    system = [Message(role="system", content=text_of(row, "system"))] if row.get("system") not in (None, "") else []
    return [*system, *(_turn(turn, f"conversations[{place}]") for place, turn in enumerate(turns))]


def _turn(turn: Mapping[str, Any], where: str) -> Message:
    if "role" in turn and "from" not in turn:
        return message_of(turn, where)
    who, value = str(turn.get("from")), turn.get("value")
    more = {name: part for name, part in turn.items() if name not in ("from", "value")}
    if who in _CALLS:
        calls = json_of(value, f"{where}.value", "{name, arguments}")
        return message_of(
            {**more, "role": "assistant", "tool_calls": calls if isinstance(calls, list) else [calls]}, where
        )
    if who not in _ROLES:
        raise ValueError(f"{where}.from is {who!r}: allowed are {', '.join((*_ROLES, *_CALLS))}")
    text = json.dumps(value, ensure_ascii=False) if _ROLES[who] == "tool" and isinstance(value, dict | list) else value
    try:
        return message_of({**more, "role": _ROLES[who], "content": text}, where)
    except ValueError as error:
        raise ValueError(str(error).replace(f"{where}.content", f"{where}.value")) from None


def _learned(row: Row) -> Messages:
    refuse_label(row, "conversations+label")
    return learnable(_messages(row), "conversations")


SHAREGPT = RowFormat(
    ("conversations",), _learned, lambda row: asked(_messages(row), "conversations"), optional=("system",)
)
