"""Every field of an agent's configuration reaches the model, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_stack_client import BadRequestError

from tests.api.conftest import Served
from tests.api.talks import ADD, ANSWERS, talk
from tests.scripted import Answer, Scripted
from tests.tools.test_photogen import MADE, PNG


@pytest.mark.parametrize(
    ("config", "sent"),
    [
        ({}, {"temperature": 0}),
        ({"sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 5}}, {"temperature": 0, "max_tokens": 5}),
        ({"sampling_params": {"strategy": {"type": "top_k", "top_k": 7}}}, {"top_k": 7}),
        (
            {"sampling_params": {"strategy": {"type": "top_p", "temperature": 0.3, "top_p": 0.7}}},
            {"temperature": 0.3, "top_p": 0.7},
        ),
        ({"sampling_params": {"stop": ["x"], "repetition_penalty": 1.2}}, {"stop": ["x"], "repetition_penalty": 1.2}),
    ],
)
def test_sampling(served: Served, script: Scripted, config: dict[str, Any], sent: dict[str, Any]) -> None:
    talk(served, script, **config).say("hello")
    asked = script.sent[-1]
    assert {name: asked.get(name) for name in sent} == sent
    assert asked.get("max_tokens") != 0
    for name in ("top_k", "stop", "repetition_penalty"):
        assert (name in asked) is (name in sent)


def test_the_format_of_answers(served: Served, script: Scripted) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    talk(served, script, response_format={"type": "json_schema", "json_schema": schema}).say("hello")
    assert script.sent[-1]["response_format"]["json_schema"]["schema"] == schema
    grammar = {"type": "grammar", "bnf": {"root": '"yes" | "no"'}}
    talk(served, script, response_format=grammar).say("hello")
    assert "yes" in str(script.sent[-1])


def test_an_answers_schema_leaves_room_for_calls_that_are_written_as_text(served: Served, script: Scripted) -> None:
    schema = {"type": "object", "properties": {"name": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "string"}}}
    ANSWERS["who?"] = '{"name": "Ada", "parameters": {}}'
    one = talk(
        *(served, script),
        client_tools=[ADD],
        tool_config={"tool_prompt_format": "json"},
        response_format={"type": "json_schema", "json_schema": schema},
    )
    turn = one.say("who?")
    assert turn.output_message.content == ANSWERS["who?"], "a name that no tool has is an answer"
    call, answer = script.sent[-1]["response_format"]["json_schema"]["schema"]["anyOf"]
    assert call["properties"]["name"] == {"const": "add"}
    assert answer["properties"] == schema["properties"]
    assert script.sent[-1]["response_format"]["json_schema"]["schema"]["$defs"] == schema["$defs"]


@pytest.mark.parametrize(
    ("form", "wanted", "told"),
    [
        ("json", {"type": "grammar", "bnf": {"root": '"x"'}}, "a grammar leaves no room for the calls"),
        ("python_list", {"type": "json_schema", "json_schema": {}}, "leaves room for calls in json only"),
    ],
)
def test_formats_that_leave_no_room_for_calls_are_refused(
    served: Served, script: Scripted, form: str, wanted: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadRequestError, match=told):
        talk(
            *(served, script),
            client_tools=[ADD],
            tool_config={"tool_prompt_format": form},
            response_format=wanted,
        )


def test_what_a_system_message_does_to_the_tools(served: Served, script: Scripted) -> None:
    def system(instructions: str, **tool_config: Any) -> str:
        config = {"tool_prompt_format": "json", **tool_config}
        one = talk(served, script, instructions=instructions, client_tools=[ADD], tool_config=config)
        one.say("hello")
        return str(script.sent[-1]["messages"][0]["content"])

    appended = system("Be brief.")
    assert appended.endswith("Be brief.")
    assert '"name": "add"' in appended
    assert system("Be brief.", system_message_behavior="replace") == "Be brief."
    placed = system("Tools: {{function_definitions}} Be brief.", system_message_behavior="replace")
    assert placed.startswith("Tools: You can call")
    assert placed.endswith(" Be brief.")


IMAGE = {"type": "image", "image": {"data": PNG}}


def test_images_go_to_models_that_see(served: Served, script: Scripted) -> None:
    one = talk(served, script)
    said = {"role": "user", "content": [{"type": "text", "text": "what is this?"}, IMAGE]}
    one.agents.turn.create(one.session_id, agent_id=one.agent_id, messages=[said])
    text, image = script.sent[-1]["messages"][-1]["content"]
    assert text == {"type": "text", "text": "what is this?"}
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def test_images_are_refused_for_models_that_do_not_see(served: Served, script: Scripted) -> None:
    Path("conf/model/blind.yaml").write_text("model_id: blind\npath: ./nowhere\n")
    one = talk(served, script, model="blind")
    said = {"role": "user", "content": [IMAGE]}
    with pytest.raises(BadRequestError, match=r"messages.0.content: the model 'blind' sees no images: send text"):
        one.agents.turn.create(one.session_id, agent_id=one.agent_id, messages=[said])


def test_images_that_a_tool_makes_are_the_turns_attachments(served: Served, script: Scripted) -> None:
    def say(body: dict[str, Any], _: int) -> Any:
        if "prompt" in body:
            return Answer(body=MADE)
        last = body["messages"][-1]
        return "done" if last["role"] == "tool" else Answer(calls=[("photogen", '{"query": "a cat"}')])

    script.say = say
    folder = Path("conf/toolgroup")
    folder.mkdir()
    (folder / "draw.yaml").write_text(f"toolgroup_id: draw\nprovider:\n  type: photogen\n  base_url: {script.url}\n")
    turn = talk(served, script, toolgroups=["draw"]).say("draw a cat")
    (attachment,) = turn.output_attachments
    assert attachment.mime_type == "image/png"
    assert attachment.content.image.data == PNG
    assert PNG not in str(script.sent[-1]), "a tool's answer is text to the model"


def test_arguments_of_other_servers_groups_are_refused(served: Served, script: Scripted) -> None:
    group = {"name": "builtin::rag", "args": {"vector_db_ids": ["mine"]}}
    with pytest.raises(BadRequestError, match=r"args.vector_db_ids: no tool of it takes that; known are query"):
        talk(served, script, toolgroups=[group])
