"""wolfram_alpha: computed answers of Wolfram|Alpha, by its LLM API.

Source: products.wolframalpha.com/llm-api/documentation: `input` and `maxchars`; the AppID as a bearer token, which
keeps it out of addresses; 501 where the input is not understood, with suggestions in its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.schema.inference import ToolDef
from llsflow.schema.toolgroups import WolframAlpha
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult
from llsflow.tools.service import Service

MOST_BYTES = 1 << 20
MOST_CHARACTERS = 6_800
"""Of an answer; Wolfram|Alpha's own default."""

TOOL = ToolDef(
    name="wolfram_alpha",
    description=(
        "Asks Wolfram|Alpha: computes mathematics exactly, converts units, and knows facts of science, geography, "
        "history, people and money. Write a short query in English, such as 'integrate x^2 sin x' or "
        "'population of France in 2020'."
    ),
    input_schema={
        "type": "object",
        "properties": {"query": {"type": "string", "description": "The query, in English", "minLength": 1}},
        "required": ["query"],
        "additionalProperties": False,
    },
)


class WolframAlphaTool(ToolProvider):
    """The tool of one AppID."""

    def __init__(self, config: WolframAlpha) -> None:
        self._service = Service("Wolfram|Alpha", config.base_url, config.api_key_env, most_bytes=MOST_BYTES)

    async def tools(self) -> Sequence[ToolDef]:
        """Return the tool, once there is an AppID."""
        self._service.key()
        return [TOOL]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return the answer as Wolfram|Alpha words it for models."""
        answer = await self._service.ask(
            "GET",
            "/llm-api",
            headers={"authorization": f"Bearer {self._service.key()}"},
            params={"input": str(arguments["query"]), "maxchars": str(MOST_CHARACTERS)},
            takes=(200, 400, 501),
        )
        said = answer.text.replace(self._service.key(), "…").strip()[:MOST_CHARACTERS]
        if answer.status != 200:
            raise ToolError(f"Wolfram|Alpha does not understand the query: {said or 'say it in other words'}")
        if not said or said.startswith("<"):
            raise ToolError("Wolfram|Alpha answers with something that is no text")
        return ToolResult(said)

    async def close(self) -> None:
        """Close its connections."""
        await self._service.close()
