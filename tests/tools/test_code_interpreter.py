"""code_interpreter: what a model reads of a run, and what the user sees."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.inference import ImageContentItem, TextContentItem
from llsflow.schema.toolgroups import CodeInterpreter
from llsflow.tools.base import ToolResult
from llsflow.tools.code_interpreter import CodeInterpreterTool
from tests.tools.calling import CONTEXT, call, tools_of
from tests.tools.sandboxes import processes, skip_without_sandbox


@pytest.fixture
def _possible() -> None:
    skip_without_sandbox()


def run(code: str, **changes: Any) -> ToolResult:
    return call(CodeInterpreterTool(CodeInterpreter(**changes)), "code_interpreter", code=code)


pytestmark = pytest.mark.usefixtures("_possible")


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        ("print('a')\n6 * 7", "a\n42", 0),
        ("x = 1", "[no output]", 0),
        ("import sys\nprint('a')\nsys.exit(2)", "a\n[exit status 2]", 2),
        ("import os\nos.abort()", "[ended by SIGABRT]", -6),
        ("import os\nos.kill(os.getpid(), 40)", "[ended by signal 40]", -40),
        ("print('x' * 100)", "x" * 50 + "\n[cut here: the output has more than 50 characters]", 0),
        ("print('😀' * 51)", "😀" * 50 + "\n[cut here: the output has more than 50 characters]", 0),
        (
            "while True: print('x' * 99)",
            "x" * 50 + "\n[stopped: the output has more than 50 characters, and was cut here]",
            -9,
        ),
        ("while True: pass", "[stopped: it used more than 1 s of processor time]", -9),
        (
            "import os, time\nfor _ in range(4): os.fork()\nheld = b'x' * (64 << 20)\ntime.sleep(60)",
            "[stopped: it used more than 256 MB of memory]",
            -9,
        ),
    ],
)
def test_a_model_reads_how_it_ended(code: str, text: str, status: int) -> None:
    assert run(code, max_output_characters=50, cpu_seconds=1, memory_mb=256) == ToolResult(
        text, {"exit_status": status}
    )


def test_plots_are_shown_to_the_user() -> None:
    made = run(
        """
from PIL import Image
Image.new('RGB', (8, 8), 'red').save('red.png')
Image.new('RGB', (8, 8), 'blue').save('blue.jpg')
open('fake.png', 'w').write('<script>')
print('done')
"""
    )
    assert isinstance(made.content, list)
    text, red, blue = made.content
    assert isinstance(text, TextContentItem)
    assert text.text == (
        "done\n[the user sees red.png]\n[the user sees blue.jpg]\n[fake.png is no image, allowed: PNG, JPEG, WebP]"
    )
    assert isinstance(red, ImageContentItem)
    assert isinstance(blue, ImageContentItem)
    assert (red.image.data or "").startswith("iVBORw0KGgo")
    assert (blue.image.data or "").startswith("/9j/")


def test_a_call_whose_time_is_over_leaves_nothing() -> None:
    async def talk() -> None:
        tool = CodeInterpreterTool(CodeInterpreter())
        await tool.tools()
        code = "import os; os.execv('/usr/bin/sleep', ['sleep', '86398.5'])"
        task = asyncio.create_task(tool.call("code_interpreter", {"code": code}, CONTEXT))
        while not processes("86398.5"):
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.01)
        assert processes("86398.5") == []
        await tool.close()

    before = set(psutil.Process().children(recursive=True))
    asyncio.run(talk())
    assert set(psutil.Process().children(recursive=True)) <= before


def test_the_tool_says_what_it_can_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tool,) = tools_of(CodeInterpreterTool(CodeInterpreter(cpu_seconds=7)))
    assert tool.name == "code_interpreter"
    assert "7 s of processor time and 512 MB of memory" in (tool.description or "")
    assert (tool.input_schema or {})["required"] == ["code"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="code_interpreter needs bubblewrap"):
        tools_of(CodeInterpreterTool(CodeInterpreter()))
