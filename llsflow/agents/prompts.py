"""Tools in prompts: how their definitions are written for a model, how it writes calls, and how these are read.

Formats: `json` and `function_tag` as Llama 3.1 has them, `python_list` as Llama 3.2 and 4 have it
(github.com/meta-llama/llama-models, prompt_format.md of each).
"""

from __future__ import annotations

import ast
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.schema.inference import (
    SystemMessageBehavior,
    ToolCall,
    ToolChoice,
    ToolConfig,
    ToolDef,
    ToolPromptFormat,
)

DEFINITIONS = "{{function_definitions}}"
"""What an agent's instructions may hold where definitions are to stand."""


class MalformedCallError(ValueError):
    """Text that begins as a call and is none; the message is for the model."""


@dataclass(frozen=True)
class CallFormat:
    """How a model writes calls."""

    how: str
    """What it is told about it."""
    starts: Callable[[str], bool]
    """Whether a text that has this beginning, which is not blank, is a call."""
    read: Callable[[str], list[tuple[str, dict[str, Any]]]]
    """Text -> names and arguments; ValueError, KeyError, TypeError: it is none."""
    write: Callable[[Sequence[tuple[str, dict[str, Any]]]], str]
    """Names and arguments -> text."""


def _read_json(text: str) -> list[tuple[str, dict[str, Any]]]:
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        found += value if isinstance(value, list) else [value]
        while place < len(text) and text[place] in " \t\r\n;,":
            place += 1
    return [(one["name"], _arguments(one.get("parameters", one.get("arguments", {})))) for one in found]


def _arguments(value: Any) -> dict[str, Any]:
    given = json.loads(value) if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise TypeError("arguments are an object")
    return given


def _write_json(calls: Sequence[tuple[str, dict[str, Any]]]) -> str:
    return "\n".join(json.dumps({"name": name, "parameters": given}, ensure_ascii=False) for name, given in calls)


_TAG = re.compile(r"<function=([^>\s]+)>(.*?)</function>", re.DOTALL)


def _read_tags(text: str) -> list[tuple[str, dict[str, Any]]]:
    if _TAG.sub("", text).strip():
        raise ValueError("something stands beside the tags")
    return [(name, _arguments(given.strip() or "{}")) for name, given in _TAG.findall(text)]


def _write_tags(calls: Sequence[tuple[str, dict[str, Any]]]) -> str:
    return "\n".join(f"<function={name}>{json.dumps(given, ensure_ascii=False)}</function>" for name, given in calls)


def _read_python(text: str) -> list[tuple[str, dict[str, Any]]]:
    made = ast.parse(text, mode="eval").body
    if not isinstance(made, ast.List):
        raise TypeError("a list of calls is needed")
    calls = []
    for one in made.elts:
        if not isinstance(one, ast.Call) or one.args:
            raise TypeError("calls with named arguments are needed")
        given = {str(word.arg): ast.literal_eval(word.value) for word in one.keywords}
        calls.append((ast.unparse(one.func), json.loads(json.dumps(given))))
    return calls


def _write_python(calls: Sequence[tuple[str, dict[str, Any]]]) -> str:
    written = (f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in calls)
    return f"[{', '.join(written)}]"


FORMATS: Mapping[ToolPromptFormat, CallFormat] = {
    ToolPromptFormat.JSON: CallFormat(
        'To call a function, answer with JSON alone: {"name": function name, "parameters": {argument name: value}}. '
        "For several calls, write one object a line.",
        lambda text: text.startswith("{") or (text.startswith("[") and '"name"' in text),
        _read_json,
        _write_json,
    ),
    ToolPromptFormat.FUNCTION_TAG: CallFormat(
        "To call a function, answer with nothing but <function=function name>{argument name: value}</function>, the "
        "arguments as JSON. For several calls, write one a line.",
        lambda text: "<function="[: len(text)] == text[: len("<function=")],
        _read_tags,
        _write_tags,
    ),
    ToolPromptFormat.PYTHON_LIST: CallFormat(
        "To call functions, answer with nothing but a list of calls in Python: "
        "[name(argument=value, …), name(argument=value, …)].",
        lambda text: text.startswith("["),
        _read_python,
        _write_python,
    ),
}


def read_calls(text: str, form: ToolPromptFormat) -> list[ToolCall] | None:
    """Return the calls that a model's text is; None: it is no call.

    Raises:
        MalformedCallError: it begins as a call and cannot be read.
    """
    stripped = text.strip()
    if not stripped or not FORMATS[form].starts(stripped):
        return None
    try:
        found = FORMATS[form].read(stripped)
        if not found or not all(isinstance(name, str) and name for name, _ in found):
            raise ValueError("it names no function")
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        if form is ToolPromptFormat.JSON and _is_json_without_name(stripped):
            return None  # an answer that happens to be JSON
        raise MalformedCallError(f"this function call cannot be read ({error}). {FORMATS[form].how}") from error
    return [
        ToolCall(call_id=f"call_{uuid.uuid4().hex[:24]}", tool_name=name, arguments=json.dumps(given))
        for name, given in found
    ]


def _is_json_without_name(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not (isinstance(value, dict) and "name" in value)


def write_calls(calls: Sequence[ToolCall], form: ToolPromptFormat) -> str:
    """Return calls as the model wrote them."""
    return FORMATS[form].write([(str(call.tool_name), json.loads(call.arguments)) for call in calls])


def system_message(
    instructions: str, tools: Sequence[ToolDef], config: ToolConfig, form: ToolPromptFormat | None
) -> str:
    """Return the system message: instructions, and the tools where they are not handed over by themselves.

    Args:
        instructions: the agent's.
        tools: that may be called.
        config: how they are offered.
        form: how calls are written; null: the endpoint has its own way.
    """
    offered = tools if config.tool_choice != ToolChoice.NONE else ()
    written = definitions(offered, form) if offered and form else ""
    if config.system_message_behavior is SystemMessageBehavior.REPLACE or DEFINITIONS in instructions:
        return instructions.replace(DEFINITIONS, written)
    return "\n\n".join(part for part in (written, instructions) if part)


def definitions(tools: Sequence[ToolDef], form: ToolPromptFormat) -> str:
    """Return what a model is told about its tools."""
    listed = "\n".join(json.dumps(_definition(tool), ensure_ascii=False) for tool in tools)
    return f"You can call these functions:\n{listed}\n\n{FORMATS[form].how} Answer without a call where none is needed."


def native(tools: Sequence[ToolDef]) -> list[dict[str, Any]]:
    """Return tools as the OpenAI protocol has them (platform.openai.com/docs/api-reference/chat/create, tools)."""
    return [{"type": "function", "function": _definition(tool)} for tool in tools]


def _definition(tool: ToolDef) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {
        "name": tool.name,
        **described,
        "parameters": tool.input_schema or {"type": "object", "properties": {}},
    }


def call_or(tools: Sequence[ToolDef], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a call in the format `json`, or of an answer that keeps to a schema of its own."""
    own = {key: value for key, value in answer.items() if key not in ("$defs", "definitions", "$schema", "$id")}
    named = {key: answer[key] for key in ("$defs", "definitions") if key in answer}
    return {"anyOf": [*call_schema(tools)["anyOf"], own], **named}


def call_schema(tools: Sequence[ToolDef]) -> dict[str, Any]:
    """Return the JSON schema of a call of one of the tools in the format `json`."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "parameters": tool.input_schema or {"type": "object", "properties": {}},
                },
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
    }
