"""Documents of turns: whole where they are short, passages where they are long, and a tool that searches them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_stack_client import BadRequestError

from llsflow.schema.server import AgentsConfig
from tests.agents.pdfs import data_url, line, pdf
from tests.api.conftest import Served
from tests.api.talks import ANSWERS, kinds, talk
from tests.scripted import Answer, Scripted

PAGE = "<html><style>p {}</style><p>Rome is <b>old</b>.</p><script>evil()</script></html>"


@pytest.mark.parametrize(
    ("mime_type", "content", "text"),
    [
        ("text/plain", "Rome is old.", "Rome is old."),
        (
            "text/plain; charset=utf-8",
            [{"type": "text", "text": "Rome"}, {"type": "text", "text": "Oslo"}],
            "Rome\nOslo",
        ),
        ("application/json", '{"rome": "old"}', '{"rome": "old"}'),
        ("application/yaml", {"uri": "data:application/yaml;base64,cm9tZTogb2xk"}, "rome: old"),
        ("text/html", PAGE, "Rome is old."),
        ("text/plain", "data:text/plain,Rome%20is%20old.", "Rome is old."),
        ("application/pdf", data_url(pdf([line(b"Rome"), line(b"Oslo")])), "Rome\n\nOslo"),
    ],
)
def test_documents_stand_behind_the_message_with_their_borders(
    served: Served, script: Scripted, mime_type: str, content: Any, text: str
) -> None:
    one = talk(served, script)
    first = {"content": "Oslo is not.", "mime_type": "text/plain"}
    turn = one.say("hello", documents=[first, {"content": content, "mime_type": mime_type}])
    told = f"hello\n\n[document 1]\nOslo is not.\n[end of document 1]\n\n[document 2]\n{text}\n[end of document 2]"
    assert script.sent[-1]["messages"][-1]["content"] == told
    assert [message.content for message in turn.input_messages] == ["hello"]
    one.say("again")
    assert [message["content"] for message in script.sent[-1]["messages"]][1] == told


def test_documents_that_cannot_be_read_are_refused_together(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    documents = [
        {"content": "x", "mime_type": "application/msword"},
        {"content": {"uri": f"{script.url}/secret"}, "mime_type": "text/plain"},
        {"content": {"uri": "https://127.0.0.1/secret"}, "mime_type": "text/plain"},
        {"content": {"uri": "data:text/plain;base64,?"}, "mime_type": "text/plain"},
        {"content": {"type": "image", "image": {"data": "eA=="}}, "mime_type": "text/plain"},
        {"content": "x" * 10_000_001, "mime_type": "text/plain"},
        {"content": "x", "mime_type": "application/pdf"},
    ]
    with pytest.raises(BadRequestError) as refused:
        one.say("hello", documents=documents)
    for told in (
        "documents.0: mime_type is 'application/msword', allowed: text/",
        "https is allowed, http for server.fetch.allow_hosts only",
        "only hosts in server.fetch.allow_hosts may be at private or loopback addresses",
        "documents.3: the data URL is no base64",
        "documents.4: content holds an image",
        "documents.6: content is no PDF",
        "documents: are 10,000,001 characters of text, allowed: 10,000,000",
    ):
        assert told in str(refused.value)
    assert not script.sent
    assert one.session.turns == []


TOWNS = ("Rome", "Oslo", "Lima", "Bern", "Cairo", "Quito", "Tunis", "Seoul", "Dakar", "Minsk")
LONG = "\n\n".join(
    f"{town} has {number} gates. " + "It is a town like others. " * 20 for number, town in enumerate(TOWNS)
)


@pytest.fixture
def short(served: Served) -> Served:
    """A server that inserts little."""
    served.services.agents.settings = AgentsConfig(documents_characters=1_500, passages=2, passage_characters=700)
    return served


def test_of_a_long_document_the_passages_that_matter_go_to_the_model(short: Served, script: Scripted) -> None:
    one = talk(short, script)
    payloads = one.stream("how many gates has Lima?", documents=[{"content": LONG, "mime_type": "text/plain"}])
    assert kinds(payloads)[:4] == ["turn_start", "step_start", "step_complete", "step_start"]
    start, complete = payloads[1:3]
    assert {start.step_type, complete.step_type} == {"memory_retrieval"}
    assert start.step_id == complete.step_id == complete.step_details.step_id
    step = complete.step_details
    assert "Lima has 2 gates." in step.inserted_context
    assert "Seoul" not in step.inserted_context
    assert script.sent[-1]["messages"][-1]["content"] == "how many gates has Lima?" + step.inserted_context
    one.say("and Seoul?")
    asked = script.sent[-1]["messages"]
    assert "Lima has 2 gates." in asked[1]["content"]
    assert "Seoul has 7 gates." in asked[-1]["content"]
    assert [turn.steps[0].step_type for turn in one.session.turns] == ["memory_retrieval"] * 2


def test_documents_that_were_inserted_whole_stay_so_when_more_come(short: Served, script: Scripted) -> None:
    one = talk(short, script)
    one.say("hello", documents=[{"content": "Kyiv has 3 gates.", "mime_type": "text/plain"}])
    one.say("and Lima?", documents=[{"content": LONG, "mime_type": "text/plain"}])
    asked = script.sent[-1]["messages"]
    assert asked[1]["content"] == "hello\n\n[document 1]\nKyiv has 3 gates.\n[end of document 1]"
    assert "Lima has 2 gates." in asked[-1]["content"]
    assert "Kyiv" not in asked[-1]["content"]


def test_a_tool_searches_the_documents_of_the_session(served: Served, script: Scripted) -> None:
    ANSWERS["what of Dakar?"] = Answer(calls=[("knowledge_search", json.dumps({"query": "gates of Dakar"}))])
    one = talk(served, script, toolgroups=["builtin::rag"])
    one.say("hello", documents=[{"content": LONG, "mime_type": "text/plain"}])
    turn = one.say("what of Dakar?")
    found = turn.steps[1].tool_responses[0].content
    assert found.startswith("[passage 1]\n")
    assert "Dakar has 8 gates." in found
    other = talk(served, script, toolgroups=["builtin::rag"])
    found = other.say("what of Dakar?").steps[1].tool_responses[0].content
    assert found == "This conversation has no documents."


def test_an_embedding_model_finds_passages(served: Served, script: Scripted) -> None:
    """The scripted vectors say that a question is like the passage on Oslo, with which it shares no word."""

    def say(body: dict[str, Any], _: int) -> Any:
        if "input" not in body:
            return "a fine answer"
        return Answer(
            body={
                "data": [
                    {"index": place, "embedding": [1.0, 0.1] if "Oslo" in text or "capital" in text else [0.0, 1.0]}
                    for place, text in enumerate(body["input"])
                ]
            }
        )

    script.say = say
    Path("conf/model/vectors.yaml").write_text(
        f"model_id: vectors\nmodel_type: rerank\nendpoint:\n  base_url: {script.url}\n  retries: 0\n"
    )
    settings = {"documents_characters": 1_500, "passages": 1, "passage_characters": 700, "embedding_model": "vectors"}
    served.services.agents.settings = AgentsConfig.model_validate(settings)
    one = talk(served, script)
    turn = one.say("that northern capital?", documents=[{"content": LONG, "mime_type": "text/plain"}])
    assert "Oslo has 1 gates." in turn.steps[0].inserted_context
