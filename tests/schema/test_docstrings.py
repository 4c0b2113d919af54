"""What a published schema says of each field is what stands below it in the source."""

from __future__ import annotations

from llsflow.schema.agents import InferenceStep
from llsflow.schema.base import Record
from llsflow.schema.benchmarks import Benchmark
from llsflow.schema.docstrings import field_docstrings
from llsflow.schema.plan import Plan
from llsflow.schema.server import FetchConfig, ServerConfig


class Below(ServerConfig):
    """A record with a base."""

    host: str = "other"
    """Said anew."""
    silent: int = 0
    many: int = 0
    """Of several lines,

    whose indent is the code's.
    """


def test_a_schema_has_the_text_below_each_field() -> None:
    properties = FetchConfig.model_json_schema()["properties"]
    assert properties["max_bytes"]["description"] == "Largest answer that is taken."
    # that of a field which is a record, in a schema that refers to others
    server = ServerConfig.model_json_schema()
    assert server["properties"]["store"]["description"].startswith("SQLAlchemy URL of the store")
    assert server["$defs"]["FetchConfig"]["properties"]["timeout_seconds"]["description"] == "For the whole answer."


def test_bases_say_what_their_fields_are_and_classes_say_it_anew() -> None:
    found = field_docstrings(Below)
    assert found["host"] == "Said anew."
    assert found["port"] == "0: any that is free."
    assert found["many"] == "Of several lines,\n\nwhose indent is the code's."
    assert "silent" not in found
    assert "description" not in Below.model_json_schema()["properties"]["silent"]


def test_records_of_the_same_name_are_not_mixed_up() -> None:
    assert set(field_docstrings(Benchmark)) == {"provider_id"}
    assert set(field_docstrings(InferenceStep)) == {"usage", "reasoning_content"}
    assert field_docstrings(Plan)


def test_what_has_no_source_says_nothing() -> None:
    made = type("Made", (Record,), {"__module__": "no.such.module", "__annotations__": {"field": int}})
    assert field_docstrings(made) == {}
