"""Every chat template that TRL and axolotl ship: nothing is masked wrongly, and at most two of them are refused."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from llsflow.data.learned import NO_REASONING, REASONING_LEFT_OUT
from llsflow.data.tokens import TokenSettings, preview, tokenize
from llsflow.errors import DataError
from llsflow.schema.training import DatasetFormat
from tests.templates import Structure, tokenizer_of
from tests.templates.rows import TOOLS

pytestmark = pytest.mark.slow

PEERS = ("trl==1.13.0", "axolotl==0.19.0")
FOLDERS = ("trl/chat_templates", "axolotl/utils/chat_templates/templates")
MARK = re.compile(r"<\|[^|<>'\" ]+\|>|<｜[^｜]+｜>|</?s>|<\w+_of_\w+>|<(?:bos|eos)>|\[/?[A-Z_]+\]|<turn\|>|<\|turn>")
ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|return|>",
    "<|eot|>",
    "<|END_OF_TURN_TOKEN|>",
)
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "get_time", "arguments": {"city": "Oslo"}}}


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TWO = [turn("user", "first question"), turn("assistant", "first answer")]
AGAIN = [turn("user", "second question"), turn("assistant", "second answer")]
THOUGHT = [
    TWO[0],
    {**TWO[1], "reasoning_content": "deep thought"},
    AGAIN[0],
    {**AGAIN[1], "reasoning_content": "why not"},
]
CALLED = [
    TWO[0],
    turn("assistant", "", tool_calls=[CALL]),
    turn("tool", "noon", tool_call_id="abcdefghi", name="get_time"),
]
ROWS: dict[str, dict[str, Any]] = {
    "one": {"messages": TWO},
    "two": {"messages": [*TWO, *AGAIN]},
    "system": {"messages": [turn("system", "Be brief now."), *TWO, *AGAIN]},
    "reasoning": {"messages": THOUGHT},
    "tools": {"messages": [*CALLED, TWO[1], *AGAIN], "tools": TOOLS[1:]},
}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The templates by name."""
    folder = tmp_path_factory.mktemp("peers")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    subprocess.run([*install, *PEERS], check=True)
    files = [file for place in FOLDERS for file in sorted((folder / place).glob("*.jinja"))]
    return {f"{file.relative_to(folder).parts[0]}/{file.stem}": file.read_text("utf-8") for file in files}


def test_nothing_is_masked_wrongly(templates: dict[str, str]) -> None:
    assert len(templates) > 80
    wrong: list[str] = []
    refused: set[str] = set()
    for name, text in templates.items():
        tokenizer = _tokenizer(text)
        for kind, asked in ROWS.items():
            if not _writes(tokenizer, asked):
                continue
            try:
                wrong += [f"{name}, {kind}: {why}" for why in _mistakes(tokenizer, asked)]
            except DataError:
                refused.add(name)
    assert not wrong
    assert len(refused) <= 2, sorted(refused)


def _tokenizer(text: str) -> Any:
    marks = list(dict.fromkeys(MARK.findall(text)))
    end = next((mark for mark in ENDS if mark in marks), "</s>")
    structure = Structure("chatml", "", [end, *marks], bos="<s>")
    tokenizer = tokenizer_of(structure)
    tokenizer.chat_template = text
    return tokenizer


def _applied(tokenizer: Any, asked: dict[str, Any], count: int, *, prompt: bool = False) -> str:
    messages = [
        {**message, "content": [{"type": "text", "text": message["content"]}]} if _parts(tokenizer) else message
        for message in asked["messages"][:count]
    ]
    given = {"tools": asked.get("tools"), "tokenize": False, "add_generation_prompt": prompt}
    return str(tokenizer.apply_chat_template(messages, **given))


def _parts(tokenizer: Any) -> bool:
    """Return whether the template is one for images, whose content is a list of parts."""
    return any(
        mark in tokenizer.chat_template for mark in ("message['content'][0]", "line['text']", "content['text']")
    ) and ("is string" not in tokenizer.chat_template)


def _writes(tokenizer: Any, asked: dict[str, Any]) -> bool:
    """Return whether the template itself takes the row, and writes its tools and calls."""
    try:
        text = _applied(tokenizer, asked, len(asked["messages"]))
    except Exception:
        return False
    return "tools" not in asked or (text.count("get_time") > 1 and "Oslo" in text)


def _mistakes(tokenizer: Any, asked: dict[str, Any]) -> list[str]:
    """Return what is wrong with what is learned of a row."""
    settings = TokenSettings(DatasetFormat.DIALOG, train_on_input=False, max_length=10**6, overlong="refuse")
    table, facts = tokenize([(1, asked)], "rows", tokenizer, settings)
    pieces = [preview(table, place, tokenizer) for place in range(len(table.numbers))]
    runs = [piece["text"] for row in pieces for piece in row if piece["loss"]]
    answers = [message for message in asked["messages"] if message["role"] == "assistant"]
    wrong = [] if len(runs) == len(answers) else [f"{len(runs)} runs of {len(answers)} answers: {runs}"]
    for message in answers:
        held = message["content"] or "get_time"
        if sum(held in run for run in runs) != 1:
            wrong.append(f"{held!r} in {runs}")
        thought = message.get("reasoning_content")
        if thought and not any(thought in run for run in runs) and REASONING_LEFT_OUT not in facts.notes:
            wrong.append(f"{thought!r} is lost: {runs}")
    others = [message["content"] for message in asked["messages"] if message["role"] != "assistant"]
    wrong += [f"{content!r} is learned" for content in others if any(content in run for run in runs)]
    places = [place for place, message in enumerate(asked["messages"]) if message["role"] == "assistant"]
    texts = ["".join(piece["text"] for piece in row) for row in pieces]
    written = [
        _applied(tokenizer, asked, count) for count in (len(asked["messages"]), *(place + 1 for place in places))
    ]
    prompts = [_applied(tokenizer, asked, place, prompt=True) for place in places]
    wrong += [
        f"a text that the template does not write: {text!r}"
        for text in texts
        if text not in written and not any(text.startswith(prompt) for prompt in prompts)
    ]
    return wrong if set(facts.notes) <= {REASONING_LEFT_OUT, NO_REASONING} else [*wrong, str(facts.notes)]
