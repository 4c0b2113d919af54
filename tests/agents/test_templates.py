"""What an agent's model is asked, turn after turn: for each template, token for token what transformers writes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llsflow.agents.service import AgentsService
from llsflow.data.template import prompt_of
from llsflow.models.protocol import ChatRequest, conversation_of, read_request
from llsflow.schema.agents import AgentConfig, CreateAgentTurnRequest, ResumeAgentTurnRequest
from llsflow.schema.models import ModelConfig
from llsflow.store import Store
from tests.data.test_learned import applied
from tests.scripted import Answer, Scripted, scripted
from tests.templates import TEMPLATES, Structure, tokenizer_of
from tests.templates.rows import row

PLAIN = [structure for structure in TEMPLATES if not structure.thoughts_opened]


@pytest.mark.parametrize("structure", PLAIN, ids=lambda structure: structure.name)
def test_an_agents_history_is_what_transformers_writes(structure: Structure, llsflow_home: Path) -> None:
    tokenizer = tokenizer_of(structure)
    for seed in range(4):
        asked = row(structure, seed, reasoning=False)
        answers = [turn for turn in asked["messages"] if turn["role"] == "assistant"]
        with scripted(lambda _, number, said=answers: _said(said[number])) as script:  # type: ignore[misc]
            asyncio.run(_talk(asked, script))
        places = [place for place, turn in enumerate(asked["messages"]) if turn["role"] == "assistant"]
        assert len(script.sent) == len(places)
        for place, body in zip(places, script.sent, strict=True):
            own = {name: body[name] for name in ("model", "messages", "tools") if name in body}
            text = prompt_of(tokenizer, conversation_of(read_request(own, ChatRequest)))
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids == applied(tokenizer, asked, place, prompt=True)[1], f"seed {seed}, turn {place}"


def _said(turn: dict[str, Any]) -> Answer:
    calls = turn.get("tool_calls", ())
    return Answer(
        turn.get("content", ""),
        calls=[(call["function"]["name"], json.dumps(call["function"]["arguments"])) for call in calls],
        ids=[call["id"] for call in calls],
    )


async def _talk(asked: dict[str, Any], script: Scripted) -> None:
    """Have an agent go through the conversation: instructions, tools, the user's turns and the tools' answers."""
    endpoint = {"base_url": script.url, "model": "m"}
    model = ModelConfig.model_validate({"model_id": "m", "endpoint": endpoint})
    messages = list(asked["messages"])
    instructions = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    tools = [
        {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
        for tool in (tool["function"] for tool in asked.get("tools", ()))
    ]
    config = AgentConfig.model_validate({"model": "m", "instructions": instructions, "client_tools": tools})
    with Store.open() as store:
        agents = AgentsService(store, lambda _: model, str)
        agent_id = await agents.create(config)
        session_id = agents.begin_session(agent_id, "s")
        while messages:
            begin = CreateAgentTurnRequest.model_validate({"messages": [messages.pop(0)]})
            *_, event = [event async for event in await agents.begin_turn(agent_id, session_id, begin)]
            answered = messages.pop(0)
            while "tool_calls" in answered:
                names = {call["id"]: call["function"]["name"] for call in answered["tool_calls"]}
                given = [messages.pop(0) for _ in names]
                responses = [
                    {"call_id": one["tool_call_id"], "tool_name": names[one["tool_call_id"]], "content": one["content"]}
                    for one in given
                ]
                resume = ResumeAgentTurnRequest.model_validate({"tool_responses": responses})
                turn_id = event.turn.turn_id  # type: ignore[attr-defined]
                resumed = await agents.resume_turn(agent_id, session_id, turn_id, resume)
                *_, event = [event async for event in resumed]
                answered = messages.pop(0)
        await agents.close()
