"""Response formats: which tokens keep an answer within a JSON schema or a grammar.

llguidance reads both. It begins with a new schema in 2 ms where xgrammar took 480, masks a token in a fifth of that
one's time, and brings nothing else with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llsflow.schema.inference import GrammarResponseFormat, JsonSchemaResponseFormat, ResponseFormat

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

ROOT = "root"
"""The rule that a grammar begins with."""

JSON_OPTIONS: Any = {
    # a model that knows nothing must not write blanks for ever
    "whitespace_pattern": r"[ \n\t]{0,24}",
    "lenient": False,
    "coerce_one_of": False,
}
"""Of every schema; a schema cannot change them by keys of its own."""

_UNKNOWN = "Unimplemented keys: "


def check_format(response_format: ResponseFormat) -> list[str]:
    """Return a sentence for each part of a response format that cannot be kept to."""
    from llguidance import LLMatcher

    try:
        grammar = _grammar(response_format)
    except ValueError as error:
        return [str(error)]
    found = LLMatcher.validate_grammar(grammar)
    if not found or found.startswith("WARNING"):
        return []
    if isinstance(response_format, GrammarResponseFormat):
        return [f"the grammar cannot be used: {_one_line(found)}"]
    if found.startswith(_UNKNOWN):
        keys = json.loads(found.removeprefix(_UNKNOWN))
        places = [place for key in keys for place in _places(response_format.json_schema, key)]
        return [f"{place} is not available: leave it out, or say it otherwise" for place in places or keys]
    return [f"the schema cannot be used: {_one_line(found)}"]


class Formats:
    """Makes constraints for one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: int, ends: frozenset[int]) -> None:
        from llguidance.hf import from_tokenizer

        self._tokenizer: LLTokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(ends))

    def constraint(self, response_format: ResponseFormat) -> FormatConstraint:
        """Return what keeps one answer to the format.

        Raises:
            ValueError: the format cannot be kept to, and which part of it.
        """
        from llguidance import LLMatcher

        if mistakes := check_format(response_format):
            raise ValueError("; ".join(f"response_format: {mistake}" for mistake in mistakes))
        return FormatConstraint(LLMatcher(self._tokenizer, _grammar(response_format)))


class FormatConstraint:
    """Follows one answer through its format."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary: int) -> Tensor:
        """Return which of so many tokens may come next, bool [v]."""
        import numpy as np
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        missing = vocabulary - len(allowed)  # logits of tokens that the tokenizer does not have
        return torch.from_numpy(np.pad(allowed, (0, missing)))

    def take(self, token: int) -> bool:
        """Go on behind a token, and return whether nothing may follow it.

        Raises:
            ValueError: the grammar became too large to follow.
        """
        if not self._matcher.consume_token(token):
            raise ValueError(f"the response format cannot be followed further: {_one_line(self._matcher.get_error())}")
        return self._matcher.is_stopped()


def grammar_text(bnf: Mapping[str, Any]) -> str:
    """Return the rules of a grammar as GBNF, the notation of llama.cpp: `{root: …, name: …}` are `root ::= …` lines.

    Raises:
        ValueError: no rule `root`, or a rule that is no text.
    """
    if ROOT not in bnf:
        raise ValueError(f"the grammar has no rule {ROOT!r}: found {', '.join(map(str, bnf)) or 'none'}")
    wrong = [name for name, rule in bnf.items() if not isinstance(rule, str) or not rule.strip()]
    if wrong:
        raise ValueError(f'rules of the grammar that are no text: {", ".join(wrong)}; write for example "yes" | "no"')
    return "".join(f"{name} ::= {rule.strip()}\n" for name, rule in bnf.items())


def _grammar(response_format: ResponseFormat) -> str:
    from llguidance import LLMatcher

    if isinstance(response_format, JsonSchemaResponseFormat):
        return LLMatcher.grammar_from_json_schema(json.dumps(response_format.json_schema), overrides=JSON_OPTIONS)
    from llguidance.gbnf_to_lark import gbnf_to_lark

    text = grammar_text(response_format.bnf)
    try:
        return LLMatcher.grammar_from_lark(gbnf_to_lark(text))
    except Exception as error:  # it raises plain Exception for a rule that is not there
        raise ValueError(f"the grammar cannot be used: {_one_line(str(error))}") from None


def _places(schema: Any, key: str, path: str = "#") -> Iterator[str]:
    """Yield where a key stands in a schema, as JSON pointers."""
    if isinstance(schema, dict):
        if key in schema:
            yield f"{path}/{key}"
        for name, part in schema.items():
            yield from _places(part, key, f"{path}/{name}")
    elif isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from _places(part, key, f"{path}/{number}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
