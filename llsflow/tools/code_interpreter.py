"""code_interpreter: Python in a sandbox, fresh for each call."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.schema.inference import ContentItem, TextContentItem, ToolDef
from llsflow.schema.toolgroups import CodeInterpreter
from llsflow.tools.base import ToolContext, ToolProvider, ToolResult
from llsflow.tools.images import image_item
from llsflow.tools.sandbox import FILES, THREADS, Limits, Ran, Sandbox

MOST_BYTES_OF_A_CHARACTER = 4
SIGNALS = {number.value: number.name for number in signal.Signals}
SPARE_BYTES = 1 << 16
"""Of output beyond the limit, which are cut off; only a program that goes on after them is stopped."""


class CodeInterpreterTool(ToolProvider):
    """The tool, with the limits of its group."""

    def __init__(self, config: CodeInterpreter) -> None:
        self._config = config
        output_bytes = config.max_output_characters * MOST_BYTES_OF_A_CHARACTER + SPARE_BYTES
        limits = Limits(config.cpu_seconds, config.memory_mb << 20, output_bytes)
        self._sandbox = Sandbox(config.python, limits, config.at_once)

    async def tools(self) -> Sequence[ToolDef]:
        """Return the tool, once a sandbox was made on this machine."""
        await self._sandbox.ready()
        return [_tool(self._config)]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return what the code printed, the value of its last expression, and the images that it wrote."""
        ran = await self._sandbox.run(str(arguments["code"]))
        images, notes = [], self._notes(ran)
        for image in ran.images:
            try:
                images.append(image_item(image.data))
                notes.append(f"[the user sees {image.name}]")
            except ValueError as error:
                notes.append(f"[{image.name} {error}]")
        output = ran.output[: self._config.max_output_characters].rstrip("\n")
        text = "\n".join(part for part in (output, *notes) if part) or "[no output]"
        content: list[ContentItem] = [TextContentItem(text=text), *images]
        return ToolResult(content if images else text, {"exit_status": ran.status})

    def _notes(self, ran: Ran) -> list[str]:
        """Return what there is to say of how it ended."""
        most = self._config.max_output_characters
        notes = [f"[{name} is left out: too large, or one too many]" for name in ran.left_out]
        if ran.over != "output" and (ran.more or len(ran.output) > most):
            notes.append(f"[cut here: the output has more than {most:,} characters]")
        if ran.over:
            notes.append(f"[stopped: {self._over(ran.over)}]")
        elif ran.status < 0:
            notes.append(f"[ended by {SIGNALS.get(-ran.status, f'signal {-ran.status}')}]")
        elif ran.status:
            notes.append(f"[exit status {ran.status}]")
        return notes

    def _over(self, limit: str) -> str:
        return {
            "output": f"the output has more than {self._config.max_output_characters:,} characters, and was cut here",
            "threads": f"it ran more than {THREADS} processes and threads",
            "cpu": f"it used more than {self._config.cpu_seconds} s of processor time",
            "memory": f"it used more than {self._config.memory_mb} MB of memory",
            "files": f"it wrote more than {FILES:,} files",
        }[limit]


def _tool(config: CodeInterpreter) -> ToolDef:
    return ToolDef(
        name="code_interpreter",
        description=(
            "Runs Python code and returns what it prints, and the value of its last expression. Every call starts "
            "anew: no variable and no file of an earlier call is there. There is no network. PNG and JPEG files that "
            "the code writes to the current folder, such as plots, are shown to the user. A call has "
            f"{config.cpu_seconds} s of processor time and {config.memory_mb} MB of memory."
        ),
        input_schema={
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The Python code to run", "minLength": 1}},
            "required": ["code"],
            "additionalProperties": False,
        },
    )
