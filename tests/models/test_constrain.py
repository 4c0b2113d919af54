"""Response formats: every answer parses, whatever the model would rather say; what cannot be kept to is named."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from llsflow.models.constrain import check_format, grammar_text
from llsflow.models.local import LocalModel
from llsflow.schema.inference import GrammarResponseFormat, JsonSchemaResponseFormat
from llsflow.schema.sampling import SamplingParams, SamplingStrategy, TopKSamplingStrategy, TopPSamplingStrategy
from tests.models.small import make, questions

SCHEMAS: dict[str, dict[str, Any]] = {
    "object": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "enum": {"enum": ["red", "green", 3, None]},
    "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    "pattern": {"type": "string", "pattern": "^[a-c]{2}-[0-9]{3}$"},
    "either": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"const": "x"}, "maxItems": 2}]},
    "tree": {
        "$defs": {"leaf": {"type": "integer", "minimum": 0, "maximum": 5}},
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/leaf"}, "right": {"$ref": "#/$defs/leaf"}},
        "required": ["left", "right"],
        "additionalProperties": False,
    },
    "date": {"type": "string", "format": "date"},
}


@pytest.fixture(scope="module")
def roomy() -> LocalModel:
    """A model with room for the blanks that JSON may have."""
    return make(max_position_embeddings=512)


@pytest.mark.parametrize(
    "strategy", [None, TopPSamplingStrategy(temperature=2, top_p=None), TopKSamplingStrategy(top_k=9)]
)
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_is_what_the_schema_takes(roomy: LocalModel, name: str, strategy: SamplingStrategy | None) -> None:
    sampling = SamplingParams(max_tokens=400, **({"strategy": strategy} if strategy else {}))
    wanted = JsonSchemaResponseFormat(json_schema=SCHEMAS[name])
    made = roomy.generate(questions(6), sampling, batch_size=4, response_format=wanted)
    validator = jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=jsonschema.FormatChecker())
    for generation in made:
        assert generation.finish == "stop", "too few tokens for this schema"
        validator.validate(json.loads(generation.text))
    if strategy:
        assert len({generation.text for generation in made}) > 1, "every answer was the same"


def test_every_answer_is_a_sentence_of_the_grammar(roomy: LocalModel) -> None:
    wanted = GrammarResponseFormat(bnf={"root": 'greeting ", " name "!"', "greeting": '"hi" | "bye"', "name": "[a-f]+"})
    draw = SamplingParams(max_tokens=60, strategy=TopPSamplingStrategy(temperature=1, top_p=0.9))
    for generation in roomy.generate(questions(8), draw, batch_size=8, response_format=wanted):
        assert generation.finish == "length" or re.fullmatch(r"(hi|bye), [a-f]+!", generation.text)
    (greedy,) = roomy.generate(
        questions(1),
        SamplingParams(max_tokens=9),
        batch_size=1,
        response_format=GrammarResponseFormat(bnf={"root": '"no"'}),
    )
    assert (greedy.text, greedy.finish) == ("no", "stop")


def test_the_format_goes_with_every_sampling_field(roomy: LocalModel) -> None:
    """Penalties and stop texts act within it."""
    wanted = JsonSchemaResponseFormat(json_schema={"type": "array", "items": {"enum": [1, 2]}, "maxItems": 4})
    sampling = SamplingParams(max_tokens=60, repetition_penalty=1.5, stop=["]"])
    (made,) = roomy.generate(questions(1), sampling, batch_size=1, response_format=wanted)
    assert "]" not in made.text
    assert all(item in (1, 2) for item in json.loads(made.text + "]"))


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"type": "array", "uniqueItems": True}, "#/uniqueItems is not available"),
        (
            {"type": "object", "properties": {"a": {"not": {}}, "b": {"if": {}, "then": {}}}},
            "#/properties/a/not is not available",
        ),
        ({"type": "string", "format": "nonsense"}, "Unknown format: nonsense"),
        ({"type": "nope"}, "Invalid type: nope"),
        ({"$ref": "https://example.org/x"}, "not present"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"enum": []}, "Unsatisfiable"),
    ],
)
def test_a_schema_that_cannot_be_kept_to_is_refused_with_its_part(
    roomy: LocalModel, schema: dict[str, Any], sentence: str
) -> None:
    wanted = JsonSchemaResponseFormat(json_schema=schema)
    assert any(sentence in mistake for mistake in check_format(wanted)), check_format(wanted)
    with pytest.raises(ValueError, match="response_format: "):
        roomy.row([5, 6], SamplingParams(max_tokens=5), seed=0, response_format=wanted)


def test_a_schema_cannot_loosen_the_rules() -> None:
    loosened = {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}
    assert check_format(JsonSchemaResponseFormat(json_schema=loosened))


@pytest.mark.parametrize(
    ("bnf", "sentence"),
    [
        ({}, "no rule 'root'"),
        ({"start": '"a"'}, "no rule 'root': found start"),
        ({"root": 3}, "rules of the grammar that are no text: root"),
        ({"root": "nothing"}, "'nothing' not found"),
        ({"root": '"open'}, "cannot be used"),
    ],
)
def test_a_grammar_that_is_none_is_refused(bnf: dict[str, Any], sentence: str) -> None:
    (mistake,) = check_format(GrammarResponseFormat(bnf=bnf))
    assert sentence in mistake
    assert "\n" not in mistake


def test_rules_are_written_as_gbnf() -> None:
    assert grammar_text({"root": ' a | "b" ', "a": "[x-z]"}) == 'root ::= a | "b"\na ::= [x-z]\n'
