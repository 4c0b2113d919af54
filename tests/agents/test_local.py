"""A turn with a model of the embedded engine: calls are text there, and what must be one is made one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llsflow.agents.service import AgentsService
from llsflow.models.catalogue import find_model
from llsflow.models.serving import Engine
from llsflow.schema.agents import AgentConfig, CreateAgentTurnRequest, ResumeAgentTurnRequest
from llsflow.schema.models import ModelConfig
from llsflow.store import Store
from tests.models.serving import served
from tests.models.small import make
from tests.templates import FOLDER

TOOL = {
    "name": "add",
    "input_schema": {
        "type": "object",
        "properties": {"x": {"type": "boolean"}},
        "required": ["x"],
        "additionalProperties": False,
    },
}


@pytest.fixture(params=["bytes", "qwen25"])
def agents(llsflow_home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AgentsService]:
    """Agents over a real engine with a random model: with a template that writes no tools,
    and with one that does."""
    local = make(max_position_embeddings=2048)
    local.model.save_pretrained(str(tmp_path / "model"))
    local.tokenizer.save_pretrained(str(tmp_path / "model"))
    conf = tmp_path / "conf"
    (conf / "model").mkdir(parents=True)
    template = "" if request.param == "bytes" else f"chat_template: {FOLDER / 'qwen25.jinja'}\n"
    (conf / "model" / "small.yaml").write_text(f"model_id: small\npath: {tmp_path / 'model'}\n{template}")
    engine = Engine(max_models=1, batch_size=4, device="cpu")
    engine.start()

    def model(name: str) -> ModelConfig:
        found = find_model(name, config_dir=conf)
        assert found is not None
        return found

    with served(engine, conf) as client, Store.open() as store:
        assert isinstance(client, httpx.Client)
        yield AgentsService(store, model, lambda: str(client.base_url).rstrip("/"))


def config(**changes: Any) -> AgentConfig:
    sampling = {"max_tokens": 200}
    given = {"model": "small", "instructions": "Be brief.", "sampling_params": sampling, "client_tools": [TOOL]}
    return AgentConfig.model_validate({**given, **changes})


def test_what_must_be_a_call_is_one_and_the_turn_goes_on_with_its_answer(agents: AgentsService) -> None:
    async def talk() -> tuple[Any, Any]:
        agent_id = await agents.create(config(tool_config={"tool_choice": "required"}))
        session_id = agents.begin_session(agent_id, "sums")
        request = CreateAgentTurnRequest.model_validate({"messages": [{"role": "user", "content": "41 and 1?"}]})
        *_, waiting = [event async for event in await agents.begin_turn(agent_id, session_id, request)]
        (call,) = waiting.turn.output_message.tool_calls  # type: ignore[attr-defined]
        answer = {"call_id": call.call_id, "tool_name": "add", "content": "42"}
        resume = ResumeAgentTurnRequest.model_validate({"tool_responses": [answer]})
        turn_id = waiting.turn.turn_id  # type: ignore[attr-defined]
        *_, ended = [event async for event in await agents.resume_turn(agent_id, session_id, turn_id, resume)]
        await agents.close()
        return waiting, ended

    waiting, ended = asyncio.run(talk())
    (call,) = waiting.turn.output_message.tool_calls
    assert waiting.event_type == "turn_awaiting_input"
    assert call.tool_name == "add"
    assert json.loads(call.arguments) in ({"x": True}, {"x": False})
    assert ended.event_type in ("turn_complete", "turn_awaiting_input")
    assert [step.step_type for step in ended.turn.steps][:3] == ["inference", "tool_execution", "inference"]


def test_a_turn_that_nobody_reads_is_ended(agents: AgentsService) -> None:
    async def talk() -> str:
        agent_id = await agents.create(config())
        session_id = agents.begin_session(agent_id, "sums")
        request = CreateAgentTurnRequest.model_validate({"messages": [{"role": "user", "content": "41 and 1?"}]})
        await (await agents.begin_turn(agent_id, session_id, request)).aclose()
        await agents.close()
        return str(agents.store.unkept_sessions.turns(session_id)[0].status)

    assert asyncio.run(talk()) == "failed"
