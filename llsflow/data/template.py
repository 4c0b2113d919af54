"""Chat templates: a conversation as text, by the function that transformers has for it.

Training rows, evaluation rows, the engine's prompts, agents' turns and judges are all written by `render`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from llsflow.data.conversation import Conversation, Message, ToolCall

T = TypeVar("T")

Span = tuple[int, int]
"""First character, and the one after the last."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefusesError(ValueError):
    """The chat template refuses a conversation; `reason` is what it said."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the chat template refuses it: {reason}")


class ChatTokenizer(Protocol):
    """What is needed of a tokenizer: its chat template, its special tokens and its offsets."""

    eos_token: Any
    eos_token_id: Any
    chat_template: Any

    @property
    def special_tokens_map(self) -> Any:
        """Return the special tokens by what they are for."""

    @property
    def all_special_tokens(self) -> Any:
        """Return the text of each special token."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Return the conversation as text (tokenize=False)."""

    def get_chat_template(self, chat_template: Any = None, tools: Any = None) -> Any:
        """Return the text of the template, which may be another one where there are tools."""

    def __call__(self, text: Any, **kwargs: Any) -> Any:
        """Return token ids and character offsets."""

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Return the text of token ids."""


def render(tokenizer: ChatTokenizer, conversation: Conversation, *, prompt: bool = False) -> str:
    """Return the conversation as the model's own template writes it; `prompt` opens the assistant's turn.

    Raises:
        ValueError: the template refuses it, and why.
    """
    template = _template(tokenizer, conversation)
    _check_kwargs(template, conversation.template_kwargs)
    given: dict[str, Any] = {
        **conversation.template_kwargs,
        "tools": conversation.tools or None,
        "documents": conversation.documents or None,
        "tokenize": False,
        "add_generation_prompt": prompt,
    }

    def write(messages: list[dict[str, Any]]) -> str:
        return str(tokenizer.apply_chat_template(messages, **given))

    return _written(write, _for_template(tokenizer, conversation.messages, template))


def marked_spans(tokenizer: ChatTokenizer, conversation: Conversation) -> list[Span] | None:
    """Return the spans that the template marks as the assistant's; None: it marks nothing.

    Source: huggingface.co/docs/transformers/chat_templating_writing, `{% generation %}`.

    Raises:
        ValueError: the template refuses the conversation.
    """
    template = _template(tokenizer, conversation)
    if not _has_marks(template):
        return None
    from transformers.utils.chat_template_utils import render_jinja_template

    rendering: Any = render_jinja_template

    def write(messages: list[dict[str, Any]]) -> list[Span]:
        _, spans = rendering(
            conversations=[messages],
            tools=conversation.tools or None,
            documents=conversation.documents or None,
            chat_template=template,
            return_assistant_tokens_mask=True,
            **{**tokenizer.special_tokens_map, **conversation.template_kwargs},
        )
        return [(start, end) for start, end in spans[0] if end > start]

    return _written(write, _for_template(tokenizer, conversation.messages, template))


@lru_cache(maxsize=64)
def _has_marks(template: str) -> bool:
    return _MARKS.search(template) is not None


def check_written(tokenizer: ChatTokenizer, text: str, conversation: Conversation, *, prompt: bool = False) -> None:
    """Refuse a text in which the template left out tools, calls or documents: without them the model learns otherwise.

    A name may stand in the text for another reason, so that what is looked for are names of their own in its place.

    Args:
        tokenizer: with the chat template.
        text: what the template wrote.
        conversation: of which.
        prompt: whether the text opens the assistant's turn.

    Raises:
        ValueError: what is not in the text, and what to do.
    """
    if not conversation.tools and not conversation.documents and not _calls(conversation):
        return
    marked, marks = _with_marks(conversation)
    try:
        found = render(tokenizer, marked, prompt=prompt)
    except TemplateRefusesError:  # it looks at the names themselves: all that can be told is whether they are there
        found, marks = text, {name: what for name, what in _names(conversation)}
    for mark, what in marks.items():
        if mark not in found:
            raise ValueError(f"the chat template does not write {what}")


_DO = "set model.chat_template to one that does, or"
_MARK = "llsflow_mark_"


def _calls(conversation: Conversation) -> Iterator[tuple[int, str]]:
    """Yield the message and the name of each call."""
    for place, message in enumerate(conversation.messages):
        for call in message.get("tool_calls", ()):
            yield place, call["function"]["name"]


def _names(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Yield the name of each tool and call, and how messages name what is missing and what to do."""
    for tool in conversation.tools:
        yield tool["function"]["name"], f"`tools`: {_DO} remove the column"
    for place, name in _calls(conversation):
        yield name, f"the tool_calls of message {place}: {_DO} write the calls as text"


def _with_marks(conversation: Conversation) -> tuple[Conversation, dict[str, str]]:
    """Return the conversation with names of our own for tools, calls and documents, and what each stands for."""
    marks: dict[str, str] = {}

    def mark(what: str) -> str:
        name = f"{_MARK}{len(marks)}_"
        marks[name] = what
        return name

    names = iter([mark(what) for _, what in _names(conversation)])
    tools = [{**tool, "function": {**tool["function"], "name": next(names)}} for tool in conversation.tools]
    messages: list[Message] = []
    for message in conversation.messages:
        calls: list[ToolCall] = [
            {**call, "function": {**call["function"], "name": next(names)}} for call in message.get("tool_calls", ())
        ]
        messages.append({**message, "tool_calls": calls} if calls else message)
    documents = []
    for document in conversation.documents:
        name = mark(f"`documents`: {_DO} remove the column")
        documents.append({key: name if isinstance(value, str) else value for key, value in document.items()})
    made = Conversation(messages, tools, documents, conversation.template_kwargs)
    return made, marks


def prompt_of(tokenizer: ChatTokenizer, conversation: Conversation) -> str:
    """Return what a model is asked: the conversation with the assistant's turn opened.

    Raises:
        ValueError: the template refuses the conversation, or leaves out its tools, calls or documents.
    """
    text = render(tokenizer, conversation, prompt=True)
    check_written(tokenizer, text, conversation, prompt=True)
    return text


def with_defaults(template: str, kwargs: Mapping[str, Any], date: str | None) -> str:
    """Return a template in which variables have values unless a conversation gives others, and today is `date`.

    Args:
        template: Jinja text.
        kwargs: the variables.
        date: the day that `strftime_now` writes, as 2026-12-31; None: the day on which it is asked.

    Raises:
        ValueError: the template has no variable of such a name.
    """
    _check_kwargs(template, kwargs)
    lines = [_fixed_date(date)] if date and "strftime_now" in template else []
    lines += [
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}\n"
        for name, value in kwargs.items()
    ]
    return "".join((*lines, template))


def variables_of(template: str) -> frozenset[str]:
    """Return the names of the variables that a template reads."""
    return _variables(template)


@lru_cache(maxsize=64)
def _variables(template: str) -> frozenset[str]:
    import jinja2.meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compiled: Any = _compile_jinja_template(template)
    return frozenset(jinja2.meta.find_undeclared_variables(compiled.environment.parse(template)))


def _check_kwargs(template: str, kwargs: Mapping[str, Any]) -> None:
    if not kwargs:
        return
    known = _variables(template)
    if unknown := [name for name in kwargs if name not in known]:
        raise ValueError(
            f"chat_template_kwargs.{unknown[0]}: the chat template reads no such variable: "
            f"it reads {', '.join(sorted(known - _GIVEN)) or 'none'}"
        )


_GIVEN = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "dict")
)


def _template(tokenizer: ChatTokenizer, conversation: Conversation) -> str:
    if not tokenizer.chat_template:
        raise ValueError(
            "the tokenizer has no chat template, and only rows of `text` need none: set model.chat_template to Jinja "
            "text or to a file that holds it"
        )
    return str(tokenizer.get_chat_template(None, conversation.tools or None))


_PROBE = "Is this written?"
_parts_only: dict[str, bool] = {}


def _takes_parts_only(tokenizer: ChatTokenizer, template: str) -> bool:
    """Return whether the template writes content as a list of parts and not as text, as some for images do."""
    if template not in _parts_only:

        def writes(content: Any) -> bool:
            def write(messages: list[dict[str, Any]]) -> str:
                return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))

            try:
                return _PROBE in _written(write, [{"role": "user", "content": content}])
            except TemplateRefusesError:
                return False

        _parts_only[template] = not writes(_PROBE) and writes([{"type": "text", "text": _PROBE}])
    return _parts_only[template]


def _for_template(tokenizer: ChatTokenizer, messages: Iterable[Message], template: str) -> list[dict[str, Any]]:
    """Return the messages as the template takes them: `developer`, where it knows no such role, is the system."""
    written = []
    parts = _takes_parts_only(tokenizer, template)
    for message in messages:
        made: dict[str, Any] = {name: value for name, value in message.items() if name != "weight"}
        if made["role"] == "developer" and "developer" not in template:
            made["role"] = "system"
        if parts and "content" in made:
            made["content"] = [{"type": "text", "text": made["content"]}]
        written.append(made)
    return written


def _written(write: Callable[[list[dict[str, Any]]], T], messages: list[dict[str, Any]]) -> T:
    """Return what the template writes of messages; arguments go as objects or, to templates that take only text, JSON.

    Raises:
        ValueError: the template refuses them.
    """
    from jinja2 import TemplateError

    # what a template's expressions may raise on values that its author did not think of
    refusals = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
    try:
        return write(messages)
    except refusals as error:
        as_text = _with_json_arguments(messages) if isinstance(error, TypeError) else None
        if as_text:
            try:
                return write(as_text)
            except refusals:
                pass
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TemplateRefusesError(reason[0]) from error


def _with_json_arguments(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    if not any("tool_calls" in message for message in messages):
        return None

    def text(call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}

    return [
        {**message, "tool_calls": [text(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _literal(value: Any) -> str:
    """Return a value of JSON as Jinja writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value)


def _fixed_date(date: str) -> str:
    """Return the definition of a `strftime_now` that writes this day, at midnight.

    The templates' sandbox knows no dates: each directive of strftime (Python's table of them) is replaced by its text.
    """
    from datetime import datetime

    day = datetime.fromisoformat(date)
    directives = [*"aAwdbBmyYHIpMSfjUWcxXGuV", *(f"-{one}" for one in "dmHIMSjyUW")]
    replaced = "".join(f"|replace('%{one}', {json.dumps(day.strftime(f'%{one}'))})" for one in directives)
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced}|replace('%%', '%') }}}}{{% endmacro %}}\n"
