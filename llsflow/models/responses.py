"""What a model wrote, taken apart: reasoning, text and calls, by the format that its chat template writes them in.

The scanning is that of transformers (`ResponseParser`); a tokenizer that brings its own `response_template` is read by
that one, every other by the table of formats here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llsflow.schema.thoughts import THOUGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Named = tuple[str, dict[str, Any]]
"""A function's name, and the arguments."""


@dataclass(frozen=True)
class Call:
    """A call that a model made."""

    name: str
    arguments: str
    """As JSON of an object."""


@dataclass(frozen=True)
class Said:
    """What a model said, or a part of it."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class CallFormat:
    """How a family of models writes calls."""

    name: str
    marks: tuple[str, ...]
    """Texts that are all in a chat template which writes calls so."""
    opens: str
    """Pattern of what a call, or a list of calls, begins with; a group `name` has the function's name."""
    closes: str | None
    """Pattern of what ends it; None: the end of the answer."""
    read: Callable[[str | None, str], list[Named]]
    """Name and what is between the marks -> calls; ValueError, KeyError, TypeError: it is none."""


def _arguments(value: Any) -> dict[str, Any]:
    given = json.loads(value) if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise TypeError("arguments are an object")
    return given


def _objects(text: str) -> list[Any]:
    """Return the JSON values of a text, one after another; a list is its items."""
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        if text[place] in " \t\r\n;,":
            place += 1
            continue
        value, place = decoder.raw_decode(text, place)
        found += value if isinstance(value, list) else [value]
    return found


def read_json(_: str | None, text: str) -> list[Named]:
    """Return calls of the form `{name, arguments}` or `{name, parameters}`, one or a list of them."""
    calls = []
    for one in _objects(text):
        one = one.get("function", one) if isinstance(one.get("function"), dict) else one  # noqa: PLW2901
        name = one.get("name", one.get("tool_name"))
        if not isinstance(name, str) or not name:
            raise KeyError("name")
        calls.append((name, _arguments(one.get("arguments", one.get("parameters", {})))))
    return calls


def _read_named(name: str | None, text: str) -> list[Named]:
    return [(str(name), _arguments(text.strip() or "{}"))]


_NAME = re.compile(r'"name"\s*:\s*"([^"]+)"')
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?([^\n<]+?)(?:\n```json\n|<｜tool▁sep｜>)(.*?)(?:\n```)?<｜tool▁call▁end｜>",
    re.DOTALL,
)


def _value(text: str) -> Any:
    """Return an argument that is written without quotation marks: JSON where it is, text elsewhere."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_parameters(name: str | None, text: str) -> list[Named]:
    return [(str(name), {key: _value(value) for key, value in _PARAMETER.findall(text)})]


def _read_keys(name: str | None, text: str) -> list[Named]:
    return [(str(name).strip(), {key.strip(): _value(value.strip()) for key, value in _ARGUMENT.findall(text)})]


def _read_deepseek(_: str | None, text: str) -> list[Named]:
    return [(name.strip(), _arguments(given)) for name, given in _DEEPSEEK.findall(text)]


FORMATS = (
    CallFormat(
        "gpt-oss",
        ("<|channel|>", "to=functions."),
        r"(?:<\|start\|>assistant)?\s*(?:<\|channel\|>commentary)? to=functions\.(?P<name>[\w.-]+)"
        r"(?:<\|channel\|>commentary)?\s*(?:<\|constrain\|>)?(?:json)?<\|message\|>",
        r"<\|call\|>|<\|end\|>",
        _read_named,
    ),
    CallFormat(
        "deepseek",
        ("<｜tool▁calls▁begin｜>",),
        r"\s*<｜tool▁calls▁begin｜>",
        r"<｜tool▁calls▁end｜>",
        _read_deepseek,
    ),
    CallFormat(
        "parameters",
        ("<tool_call>", "<function=", "<parameter="),
        r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
        r"</function>\s*</tool_call>",
        _read_parameters,
    ),
    CallFormat(
        "bare-parameters",
        ("<function=", "<parameter="),
        r"\s*<function=(?P<name>[^>\n]+)>",
        r"</function>",
        _read_parameters,
    ),
    CallFormat("keys", ("<tool_call>", "<arg_key>"), r"\s*<tool_call>(?P<name>[^<\n]+)", r"</tool_call>", _read_keys),
    CallFormat("tags", ("<tool_call>",), r"\s*<tool_call>", r"</tool_call>", read_json),
    CallFormat(
        "mistral-arguments",
        ("[TOOL_CALLS]", "[ARGS]"),
        r"\s*\[TOOL_CALLS\](?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?\[ARGS\]",
        r"(?=\[TOOL_CALLS\])",
        _read_named,
    ),
    CallFormat("mistral", ("[TOOL_CALLS]",), r"\s*\[TOOL_CALLS\]", None, read_json),
    CallFormat(
        "granite", ("<|tool_call|>",), r"\s*<\|tool_call\|>", r"<\|/tool_call\|>|(?=<\|tool_call\|>)", read_json
    ),
    CallFormat("command-r", ("Action: ```json",), r"\s*Action:\s*```json\s*", r"```", read_json),
    CallFormat("command", ("<|START_ACTION|>",), r"\s*<\|START_ACTION\|>", r"<\|END_ACTION\|>", read_json),
    CallFormat("llama", ("ipython", '"parameters": '), r"\A\s*(?:<\|python_tag\|>)?(?=\{\s*\"name\")", None, read_json),
    CallFormat("glm", ("<|observation|>",), r"\A\s*(?P<name>[A-Za-z_][\w.-]*)\n(?=\{)", None, _read_named),
)
"""The formats, the more special first."""

JSON_CALL = CallFormat("json", (), r"\A\s*(?=\{)", None, read_json)
"""What has to be a call is held to JSON of `{name, parameters}`, whatever the model's own format."""


def call_format(template: str) -> CallFormat | None:
    """Return how models with this chat template write calls; None: it writes no tools, or in a way not known here."""
    if "tools" not in template:
        return None
    return next((known for known in FORMATS if all(mark in template for mark in known.marks)), None)


def thoughts_of(template: str) -> tuple[str, str] | None:
    """Return the marks around the reasoning of models with this chat template; None: they have none."""
    return next((marks for marks in THOUGHTS if marks[1] in template), None)


@dataclass(frozen=True)
class ResponseFormat:
    """How one model's answers are taken apart."""

    calls: CallFormat | None
    thoughts: tuple[str, str] | None
    special: tuple[str, ...]
    """Texts of special tokens, which are no part of an answer."""
    own: Mapping[str, Any] | None = None
    """The tokenizer's own response template."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> ResponseFormat:
        """Return the format of a tokenizer's chat template."""
        given: Any = tokenizer.chat_template
        texts = [given] if isinstance(given, str) else [*given.values()]
        calls = next((known for known in map(call_format, texts) if known), None)
        thoughts = next((marks for marks in map(thoughts_of, texts) if marks), None)
        own: Any = getattr(tokenizer, "response_template", None)
        return cls(calls, thoughts, tuple(tokenizer.all_special_tokens), own)

    @property
    def reads_calls(self) -> bool:
        """Return whether calls can be read."""
        return self.calls is not None or self.own is not None

    @property
    def has_reasoning(self) -> bool:
        """Return whether answers may have reasoning that is to be kept apart."""
        return self.thoughts is not None or (self.calls is not None and self.calls.name == "gpt-oss")

    def reader(self, prompt: str, *, calls: bool, must_call: bool = False, one: bool = False) -> ResponseReader:
        """Return what takes one answer apart.

        Args:
            prompt: that is answered: it may open the reasoning.
            calls: whether tools were offered.
            must_call: the answer is held to a call.
            one: only the first call counts.
        """
        found = JSON_CALL if must_call else self.calls
        return ResponseReader(self, prompt, found if calls else None, one)


@dataclass
class ResponseReader:
    """Takes one answer apart while it grows; texts come with their special tokens."""

    format: ResponseFormat
    prompt: str
    calls: CallFormat | None
    one: bool = False
    """Only the first call counts."""
    made: Said = field(default=Said(), init=False)
    """All that was said so far."""

    def __post_init__(self) -> None:
        from transformers.utils.chat_parsing import ResponseParser

        self._region = ""
        self._body = ""
        self._space = ""
        """White space at the end of what was told, which is told once more follows."""
        opened = self.format.thoughts[0] if self.format.thoughts else ""
        begun = opened if opened and self.prompt.rstrip().endswith(opened) else ""
        if self.format.own is None or self.calls is JSON_CALL:
            self._parser = ResponseParser(self._template(), prefix=begun)
        else:
            self._parser = ResponseParser(dict(self.format.own), prefix=self.prompt)
        self._take(self._parser.initial_events)

    def more(self, text: str) -> Said:
        """Return what a further piece of the answer says, as far as nothing to come can change it."""
        return self._take(self._parser.feed(text))

    def rest(self, text: str = "") -> Said:
        """Return what is left to tell, with a last piece; the answer has ended."""
        told = self._take(self._parser.feed(text)) if text else Said()
        try:
            _, events = self._parser.finalize()
        except ValueError:  # the tokenizer's own template cannot read it: the text is the answer
            events = [{"type": "region_chunk", "field": "content", "text": self._body}]
        left = self._take(events)
        if self._space and not self.made.calls and not self.made.reasoning:
            left = self._told(Said(left.text + self._space, left.reasoning, left.calls), left)
        return Said(told.text + left.text, told.reasoning + left.reasoning, told.calls + left.calls)

    def _template(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"content": {"content": "text", "content_args": {"strip": False}}}
        if self.format.thoughts:
            start, end = map(re.escape, self.format.thoughts)
            fields["reasoning_content"] = {
                **{"open_pattern": rf"\s*{start}\n?", "close_pattern": rf"\n?{end}\s*", "content": "text"},
            }
        elif self.format.calls and self.format.calls.name == "gpt-oss":
            analysis, final = (
                rf"(?:<\|start\|>assistant)?<\|channel\|>{name}<\|message\|>" for name in ("analysis", "final")
            )
            fields["reasoning_content"] = {
                **{"open_pattern": analysis, "close_pattern": r"<\|end\|>", "content": "text"},
            }
            fields["final"] = {
                **{"open_pattern": final, "close_pattern": r"<\|return\|>|<\|end\|>", "content": "text"},
            }
        if self.calls:
            named = "(?P<name>" in self.calls.opens
            fields["tool_calls"] = {
                "open_pattern": self.calls.opens,
                **({"close_pattern": self.calls.closes} if self.calls.closes else {}),
                "content": "text",
                "repeats": True,
                "transform": {**({"name": "{name}"} if named else {}), "body": "{content}"},
            }
        # all of the prefix is the assistant's
        return {"start_anchor": "\0", "fields": fields}

    def _take(self, events: Sequence[Mapping[str, Any]]) -> Said:
        text, reasoning = "", ""
        calls: tuple[Call, ...] = ()
        for event in events:
            name = event["field"]
            if event["type"] == "region_open":
                self._region, self._body = name, ""
            elif event["type"] == "region_chunk":
                self._body += event["text"]
                if name == "reasoning_content":
                    reasoning += event["text"]
                elif name != "tool_calls":
                    text += event["text"]
            elif name == "tool_calls":
                found = self._read(event["value"])
                calls += found
                if self.one:
                    calls = () if self.made.calls else calls[:1]
                if not found:
                    text += self._body
        return self._told(Said(self._shown(text, reasoning, calls), reasoning, calls), Said())

    def _read(self, value: Any) -> tuple[Call, ...]:
        """Return the calls of a region; none: it cannot be read, and is text."""
        try:
            if self.calls and isinstance(value, dict) and "body" in value:
                named = self.calls.read(value.get("name"), value["body"])
            else:
                named = read_json(None, json.dumps(value))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # who asked is told of a call that cannot be read as it was written, and may tell the model
            known = value.get("name") if isinstance(value, dict) else None
            name = known or next(iter(_NAME.findall(self._body)), None)
            return (Call(str(name), self._body.strip()),) if name else ()
        return tuple(Call(name, json.dumps(given, ensure_ascii=False)) for name, given in named)

    def _shown(self, text: str, reasoning: str, calls: tuple[Call, ...]) -> str:
        """Return the part of a text that is told: without special tokens, and white space only before more text."""
        for mark in self.format.special:
            text = text.replace(mark, "")
        text = self._space + text
        if not self.made.text and (self.made.reasoning or reasoning):
            text = text.lstrip()
        shown = text.rstrip()
        self._space = "" if calls else text[len(shown) :]
        return shown

    def _told(self, said: Said, before: Said) -> Said:
        new = said.text[len(before.text) :], said.reasoning[len(before.reasoning) :], said.calls[len(before.calls) :]
        self.made = Said(self.made.text + new[0], self.made.reasoning + new[1], self.made.calls + new[2])
        return said
