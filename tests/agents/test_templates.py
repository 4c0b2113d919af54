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
from tests.scripted import Answer, scripted
from tests.templates import TEMPLATES, Structure, tokenizer_of
from tests.templates.rows import row

PLAIN = [structure for structure in TEMPLATES if not structure.thoughts_opened]


@pytest.mark.parametrize(
    ("structure", "is_own"),
    [(one, is_own) for one in PLAIN for is_own in ((False, True) if one.reasoning else (False,))],
    ids=lambda value: value.name if isinstance(value, Structure) else "engine" if value else "endpoint",
)
def test_an_agents_history_is_what_transformers_writes(
    structure: Structure, is_own: bool, llsflow_home: Path, tmp_path: Path
) -> None:
    """The engine is told the reasoning of earlier answers too: the chat template decides which of it is written."""
    tokenizer = tokenizer_of(structure)
    tokenizer.save_pretrained(tmp_path)
    for seed in range(4):
        asked = row(structure, seed, reasoning=is_own)
        answers = [turn for turn in asked["messages"] if turn["role"] == "assistant"]
        with scripted(lambda _, number, said=answers: _said(said[number])) as script:  # type: ignore[misc]
            endpoint = {"endpoint": {"base_url": script.url, "model": "m"}}
            model = {"model_id": "m", **({"path": str(tmp_path)} if is_own else endpoint)}
            asyncio.run(_talk(asked, ModelConfig.model_validate(model), script.url.removesuffix("/v1")))
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
        reasoning=turn.get("reasoning_content", ""),
        calls=[(call["function"]["name"], json.dumps(call["function"]["arguments"])) for call in calls],
        ids=[call["id"] for call in calls],
    )


async def _talk(asked: dict[str, Any], model: ModelConfig, engine_url: str) -> None:
    """Have an agent go through the conversation: instructions, tools, the user's turns and the tools' answers."""
    messages = list(asked["messages"])
    instructions = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    tools = [
        {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
        for tool in (tool["function"] for tool in asked.get("tools", ()))
    ]
    config = AgentConfig.model_validate({"model": "m", "instructions": instructions, "client_tools": tools})
    with Store.open() as store:
        agents = AgentsService(store, lambda _: model, lambda: engine_url)
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
