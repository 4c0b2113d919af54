"""Between autoevals and a judge: its function calls become prompts, replies become its function calls."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.schema.scoring import LLMAsJudgeScoringFnParams
from llsflow.scorers.judge import TRIES, Ask

Said = str | ValueError | None
"""A judge's reply, or why there is none; null: nothing was asked yet."""


class UnusableReplyError(Exception):
    """The judge does not answer, or never with the JSON that was asked for; the text says which."""


@dataclass(frozen=True)
class Prompt:
    """What a judge is to be asked; awaited, it is the reply."""

    text: str
    number: int
    """Which try it is, from 0."""

    def __await__(self) -> Generator[Prompt, Said, Said]:
        """Wait for the reply, by whoever drives the coroutine."""
        return (yield self)


@dataclass(frozen=True)
class Text:
    """What a vector is to be made of; awaited, it is the vector."""

    text: str

    def __await__(self) -> Generator[Text, Any, list[float]]:
        """Wait for the vector, by whoever drives the coroutine.

        Raises:
            UnusableReplyError: there is none.
        """
        made = yield self
        if not isinstance(made, list):
            raise UnusableReplyError(f"the embedding model did not answer: {made}")
        return made


Scoring = Coroutine[Prompt | Text, Any, dict[str, Any]]


def answered(rows: Sequence[Scoring], params: LLMAsJudgeScoringFnParams, ask: Ask) -> dict[int, dict[str, Any]]:
    """Return what each row's coroutine returns, by place; what all of them wait for is asked together.

    They are driven by hand: an event loop would not start where one runs already, and threads would part the prompts.
    """
    done: dict[int, dict[str, Any]] = {}
    said: dict[int, Any] = dict.fromkeys(range(len(rows)))
    try:
        while said:
            wanted: dict[int, Prompt] = {}
            embedded: dict[int, str] = {}
            for place, reply in said.items():
                try:
                    asked_for = rows[place].send(reply)
                    if isinstance(asked_for, Text):
                        embedded[place] = asked_for.text
                    else:
                        wanted[place] = asked_for
                except StopIteration as end:
                    done[place] = end.value
            said = {}
            for number in sorted({prompt.number for prompt in wanted.values()}):
                asked = {place: prompt.text for place, prompt in wanted.items() if prompt.number == number}
                said |= ask(params.judge_model, asked, number)
            if embedded and params.embedding_model:
                said |= ask.embed(params.embedding_model, embedded)
    finally:
        for row in rows:
            row.close()
    return done


class Client:
    """Answers the requests that autoevals makes for one row."""

    def __init__(self) -> None:
        self.reply: str | None = None
        """The last one that came."""

    def of_autoevals(self) -> Any:
        """Return the client object that autoevals takes."""
        from autoevals.oai import LLMClient

        # its own set-up needs the library of a hosted service
        bare = type("Bridge", (LLMClient,), {"__post_init__": lambda self: None})
        return bare(openai=None, complete=self.complete, RateLimitError=_NeverError)

    async def complete(
        self, *, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], **_: Any
    ) -> dict[str, Any]:
        """Return a chat completion that calls the only tool (platform.openai.com/docs/api-reference/chat/object).

        Raises:
            UnusableReplyError: there is no reply, or no try brought JSON that the tool takes.
        """
        function = tools[0]["function"]
        schema = strict(function["parameters"])
        prompt = "\n\n".join(str(message["content"]) for message in messages) + _asking(function["name"], schema)
        for number in range(TRIES):
            said = await Prompt(prompt, number)
            if not isinstance(said, str):
                raise UnusableReplyError(f"the judge did not answer: {said}")
            self.reply = said
            found = arguments(said, schema)
            if found is not None:
                call = {"name": function["name"], "arguments": json.dumps(found)}
                message = {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]}
                return {"choices": [{"message": message}]}
        raise UnusableReplyError(f"the judge's reply has no JSON that {function['name']} takes")


def strict(schema: Any) -> Any:
    """Return a schema of autoevals that takes only what its arithmetic bears.

    It reads every property, required or not; its integers are all verdicts, 1 or 0 by its prompts, and are summed up.
    """
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    held = {name: strict(part) for name, part in schema.items()}
    if held.get("type") == "integer":
        held["enum"] = [0, 1]
    if isinstance(held.get("properties"), dict):
        held.setdefault("required", list(held["properties"]))
    return held


def arguments(reply: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the last JSON object of a reply that the schema takes; None: there is none."""
    from autoevals.json import ValidJSON

    valid = ValidJSON().valid_json  # not by its constructor: 0.4.1 never reads the schema given there
    found = None
    for value in _values(reply):
        whole = _named(value, schema)
        if isinstance(whole, dict) and valid(whole, schema) == 1:
            found = whole
    return found


def _named(value: Any, schema: Mapping[str, Any]) -> Any:
    # the examples in several prompts of autoevals are bare lists, where its schema has one property that holds it
    (name, part), *more = schema["properties"].items()
    return {name: value} if isinstance(value, list) and not more and part.get("type") == "array" else value


def _values(text: str) -> list[Any]:
    """Return the JSON objects and lists of a text, in order; no list that may be a part of something broken."""
    decoder = json.JSONDecoder(parse_constant=_refused)
    found: list[Any] = []
    broken = False
    place = 0
    while place < len(text):
        if text[place] in "{[" and not (broken and text[place] == "["):
            try:
                value, place = decoder.raw_decode(text, place)
                json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be written anywhere
                found.append(value)
                continue
            except (ValueError, RecursionError):
                broken = True
        place += 1
    return found


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _asking(name: str, schema: Mapping[str, Any]) -> str:
    return (
        f"\n\nCall `{name}` by writing its parameters: answer with a JSON object that this schema takes, and with "
        f"nothing else, whatever form was asked for above.\n{json.dumps(schema, ensure_ascii=False)}"
    )


class _NeverError(Exception):
    """What autoevals would wait for: the judge's own client tries again by itself."""
