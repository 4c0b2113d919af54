"""The OpenAI protocol's completions: what a request says, and how it is said; the same on both sides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from llsflow.data.conversation import Conversation, Messages, ToolCall, messages_of, with_parts
from llsflow.data.parts import tools_of
from llsflow.schema.base import Bool, Int, NonNegativeInt, PositiveInt, Record, Text
from llsflow.schema.inference import GrammarResponseFormat, JsonSchemaResponseFormat, ResponseFormat
from llsflow.schema.kinds import Kind, mistake_in_words, untagged
from llsflow.schema.sampling import (
    GreedySamplingStrategy,
    SamplingParams,
    SamplingStrategy,
    TopKSamplingStrategy,
    TopPSamplingStrategy,
)

NOT_YET: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
}
"""Fields of the protocol that are taken only with a value that changes nothing."""

WITHOUT_EFFECT = ("user", "metadata", "store", "safety_identifier", "service_tier")
"""Fields that are for the books of a hosted service."""

OUT_OF_MEMORY, NOT_A_NUMBER = "out_of_memory", "not_a_number"
"""Codes of failures that are about one request, however often it is sent: no other is touched."""


class StreamOptions(Record):
    """What a stream tells beside the text."""

    include_usage: Bool = False
    """Whether a last event counts the tokens."""


class JsonSchema(Record):
    """A JSON schema as the protocol carries it."""

    name: Text = "answer"
    description: Text | None = None
    """For people: it goes to no model."""
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: Bool | None = None
    """The schema is kept to either way."""


class TextFormat(Record):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Record):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Record):
    """JSON that a schema takes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class StructuredOutputs(Record):
    """What vLLM takes beside the protocol."""

    grammar: Text
    """Lines `name ::= …`, of which `root` is the answer."""


AnswerFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class SampledRequest(Record):
    """What chat completions and completions have in common."""

    model: Text
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """0: greedy; null: 1, as the protocol has it."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """null: 1."""
    top_k: Int | None = None
    """-1, 0 or null: all. Not part of the protocol, but of most servers."""
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    """As top_k: most servers take it."""
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    """The newer name of max_tokens."""
    stop: Annotated[list[Text], Field(max_length=4)] | None = None
    seed: NonNegativeInt | None = None
    """Null: a new one each time."""
    stream: Bool = False
    stream_options: StreamOptions | None = None
    response_format: AnswerFormat | None = None
    structured_outputs: StructuredOutputs | None = None


class ChatRequest(SampledRequest):
    """The part of a request that decides the answer to a conversation."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    """Functions that the model may call, written by its own chat template."""
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    """none: as if there were no tools; null: auto."""
    parallel_tool_calls: Bool | None = None
    """false: the first call of an answer counts."""
    documents: list[dict[str, Any]] | None = None
    """As vLLM takes them: for chat templates that write documents."""
    chat_template_kwargs: dict[str, Any] | None = None
    """As vLLM takes them: further variables of the chat template, for example enable_thinking."""


class CompletionRequest(SampledRequest):
    """The part of a request that decides how a text goes on."""

    prompt: Text


class Document(Record):
    """A text to be ranked."""

    text: Text


class RankingRequest(Record):
    """What reranking takes, as Cohere began it and Jina and vLLM have it too."""

    model: Text
    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1)]
    top_n: PositiveInt | None = None
    """The first so many of the order; null: all."""
    return_documents: Bool = False
    """Whether each place of the order repeats its text."""

    @property
    def texts(self) -> list[str]:
        """Return the documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class EmbeddingRequest(Record):
    """What embeddings take (platform.openai.com/docs/api-reference/embeddings/create)."""

    model: Text
    input: Text | Annotated[list[Text], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    """base64: the bytes of little-endian 32-bit floats."""

    @property
    def texts(self) -> list[str]:
        """Return the texts."""
        return [self.input] if isinstance(self.input, str) else self.input


R = TypeVar("R", bound=Record)


def read_request(body: object, kind: type[R]) -> R:
    """Return the request that a JSON body holds.

    Raises:
        ValueError: every field that is missing, wrong or not available, in one text.
    """
    if not isinstance(body, dict):
        needed = ", ".join(name for name, field in kind.model_fields.items() if field.is_required())
        raise ValueError(f"the body is not a JSON object: send {{{needed}, …}}")
    mistakes = []
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in WITHOUT_EFFECT:
            continue
        if name in kind.model_fields:
            kept[name] = [value] if name == "stop" and isinstance(value, str) else value
        elif value not in NOT_YET.get(name, ()):
            mistakes.append(f"{name}: not available here: leave it out")
    try:
        request = kind.model_validate(kept)
    except ValidationError as error:
        mistakes += [_in_words(details, kind) for details in error.errors(include_url=False)]
    else:
        mistakes += _contradictions(request) if isinstance(request, SampledRequest) else []
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return request


def _in_words(details: ErrorDetails, record: type[Record]) -> str:
    loc, _ = untagged(details["loc"], Kind.of(record))
    if details["type"].startswith("union_tag"):
        loc = (*loc, "type")
    kind: Kind | None = Kind.of(record)
    for part in loc:
        kind = kind.child(part) if kind else None
    return f"{'.'.join(map(str, loc))}: {mistake_in_words(details, kind)}"


def _contradictions(request: SampledRequest) -> list[str]:
    mistakes = []
    if request.stream_options and not request.stream:
        mistakes.append("stream_options is for streams: send stream: true too, or leave it out")
    if request.structured_outputs and not isinstance(request.response_format, TextFormat | None):
        mistakes.append("response_format and structured_outputs both say what the answer is: send one of them")
    if request.max_tokens and request.max_completion_tokens and request.max_tokens != request.max_completion_tokens:
        mistakes.append("max_tokens and max_completion_tokens are the same thing: send one of them")
    if _cut(request) and request.temperature != 0:
        if request.top_p not in (None, 1):
            mistakes.append("top_k and top_p together are not available: send one of them")
        if request.temperature not in (None, 1):
            mistakes.append("top_k takes temperature 1 or 0: leave one of them out")
    return mistakes


def _cut(request: SampledRequest) -> int | None:
    return request.top_k if request.top_k is not None and request.top_k > 0 else None


def conversation_of(request: ChatRequest) -> Conversation:
    """Return the request's messages, with its tools unless they are not to be called.

    Raises:
        ValueError: a role or content that no chat template takes, or something that is no tool.
    """
    row = {
        "tools": None if request.tool_choice == "none" else request.tools,
        "documents": request.documents,
        "chat_template_kwargs": request.chat_template_kwargs,
    }
    return with_parts(row, messages_of({"messages": request.messages}))


def call_schema_of(request: ChatRequest) -> JsonSchemaResponseFormat | None:
    """Return the schema of a call, where the answer has to be one; None: it has not.

    Raises:
        ValueError: a choice that cannot be made, and why.
    """
    choice = request.tool_choice
    if choice in (None, "auto", "none"):
        return None
    tools = [tool["function"] for tool in tools_of({"tools": request.tools}, "tools")]
    if isinstance(choice, dict):
        named = choice.get("function")
        name = named.get("name") if isinstance(named, dict) else choice.get("name")
        tools = [tool for tool in tools if tool["name"] == name]
        if not tools:
            raise ValueError(f"tool_choice: {name!r} is none of the tools")
    if not tools:
        raise ValueError("tool_choice: required needs tools")
    if request.response_format or request.structured_outputs:
        raise ValueError("tool_choice: an answer that has to be a call keeps to no other format: leave one of them out")
    return JsonSchemaResponseFormat(json_schema={"anyOf": [_schema_of_call(tool) for tool in tools]})


def _schema_of_call(tool: Mapping[str, Any]) -> dict[str, Any]:
    parameters = tool.get("parameters") or {"type": "object", "properties": {}}
    return {
        "type": "object",
        "properties": {"name": {"const": tool["name"]}, "parameters": parameters},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def wire(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation as a request holds it: what `conversation_of` reads back is what is given here.

    Source: platform.openai.com/docs/api-reference/chat/create; vLLM has `documents` and `chat_template_kwargs` too.
    """
    body: dict[str, Any] = {"messages": _wire_messages(conversation.messages)}
    if conversation.tools:
        body["tools"] = conversation.tools
    if conversation.documents:
        body["documents"] = conversation.documents
    if conversation.template_kwargs:
        body["chat_template_kwargs"] = conversation.template_kwargs
    return body


def _wire_messages(messages: Messages) -> list[dict[str, Any]]:
    """Return messages as the protocol has them: ids, made where there are none, bind calls to their answers."""
    written: list[dict[str, Any]] = []
    waiting: list[str] = []
    """Ids of calls that are not answered yet."""
    for message in messages:
        made: dict[str, Any] = {name: value for name, value in message.items() if name != "weight"}
        if calls := message.get("tool_calls"):
            ids = [call.get("id", f"call_{len(written)}_{place}") for place, call in enumerate(calls)]
            waiting += ids
            made.setdefault("content", None)
            made["tool_calls"] = [
                {"id": called, "type": "function", "function": _wire_function(call)}
                for called, call in zip(ids, calls, strict=True)
            ]
        if message["role"] == "tool":
            answers = message.get("tool_call_id") or (waiting[0] if waiting else f"call_{len(written)}")
            made["tool_call_id"] = answers
            waiting = [called for called in waiting if called != answers]
        written.append(made)
    return written


def _wire_function(call: ToolCall) -> dict[str, Any]:
    function = call["function"]
    return {"name": function["name"], "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def sampling_of(request: SampledRequest) -> SamplingParams:
    """Return how the answer is sampled."""
    top_k = _cut(request)
    strategy: SamplingStrategy
    if request.temperature == 0:
        strategy = GreedySamplingStrategy()
    elif top_k:
        strategy = TopKSamplingStrategy(top_k=top_k)
    else:
        temperature = 1.0 if request.temperature is None else request.temperature
        strategy = TopPSamplingStrategy(temperature=temperature, top_p=request.top_p)
    return SamplingParams(
        strategy=strategy,
        max_tokens=request.max_tokens or request.max_completion_tokens,
        repetition_penalty=request.repetition_penalty or 1.0,
        stop=request.stop or None,
    )


def format_of(request: SampledRequest) -> ResponseFormat | None:
    """Return what the answer must keep to; null: nothing.

    Raises:
        ValueError: lines that are no grammar.
    """
    if request.structured_outputs:
        return GrammarResponseFormat(bnf=_rules(request.structured_outputs.grammar))
    match request.response_format:
        case JsonObjectFormat():
            return JsonSchemaResponseFormat(json_schema={"type": "object"})
        case JsonSchemaFormat(json_schema=given):
            return JsonSchemaResponseFormat(json_schema=given.schema_)
    return None


_RULE = re.compile(r"^\s*([A-Za-z][\w-]*)\s*::=", re.MULTILINE)


def _rules(grammar: str) -> dict[str, str]:
    starts = list(_RULE.finditer(grammar))
    if not starts or grammar[: starts[0].start()].strip():
        raise ValueError('structured_outputs.grammar: no rules: write lines such as root ::= "yes" | "no"')
    ends = [*(start.start() for start in starts[1:]), len(grammar)]
    return {start[1]: grammar[start.end() : end].strip() for start, end in zip(starts, ends, strict=True)}


def request_body(
    model: str,
    messages: Sequence[Mapping[str, object]],
    sampling: SamplingParams,
    seed: int | None,
    response_format: ResponseFormat | None = None,
) -> dict[str, Any]:
    """Return the JSON body of a request: what `sampling_of` and `format_of` read back is what is given here."""
    body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in messages]}
    match sampling.strategy:
        case GreedySamplingStrategy():
            body["temperature"] = 0
        case TopPSamplingStrategy(temperature=temperature, top_p=top_p):
            body |= {"temperature": temperature, "top_p": 1.0 if top_p is None else top_p}
        case TopKSamplingStrategy(top_k=top_k):
            body |= {"temperature": 1, "top_k": top_k}
    if sampling.repetition_penalty not in (None, 1.0):
        body["repetition_penalty"] = sampling.repetition_penalty
    for name, value in (("max_tokens", sampling.max_tokens), ("stop", sampling.stop), ("seed", seed)):
        if value is not None:
            body[name] = value
    match response_format:
        case JsonSchemaResponseFormat(json_schema=schema):
            named = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        case GrammarResponseFormat(bnf=bnf):
            body["structured_outputs"] = {"grammar": "".join(f"{name} ::= {rule}\n" for name, rule in bnf.items())}
    return body
