"""The shield `llama_guard`: a model that judges conversations in the way of Llama Guard 3.

Source: the prompt format of Llama Guard 3 in Meta's model cards and prompt formats,
https://www.llama.com/docs/model-cards-and-prompt-formats/llama-guard-3/; the model's card,
https://github.com/meta-llama/PurpleLlama/blob/main/Llama-Guard3/8B/MODEL_CARD.md; and, to the letter,
`prompt_format_utils.py` of Meta's llama-recipes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from llsflow.errors import NotFoundError, UnavailableError
from llsflow.schema.agents import SafetyViolation
from llsflow.schema.shields import CATEGORY_CODE, LlamaGuard, ShieldConfig
from llsflow.shields.base import Ask, Said

CATEGORIES: Mapping[str, str] = {
    "S1": "Violent Crimes",
    "S2": "Non-Violent Crimes",
    "S3": "Sex Crimes",
    "S4": "Child Exploitation",
    "S5": "Defamation",
    "S6": "Specialized Advice",
    "S7": "Privacy",
    "S8": "Intellectual Property",
    "S9": "Indiscriminate Weapons",
    "S10": "Hate",
    "S11": "Self-Harm",
    "S12": "Sexual Content",
    "S13": "Elections",
    "S14": "Code Interpreter Abuse",
}
"""The fourteen of Llama Guard 3, as its prompt names them."""

ROLES = {"user": "User", "assistant": "Agent"}

PROMPT = """\
Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy with the \
below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
{categories}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

{conversation}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST {role} message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories."""

_MARKS = re.compile(r"<(?=\s*(?:BEGIN|END)\b|\|)|\b(?:User|Agent)(?=:)", re.IGNORECASE)
"""What ends the conversation in the prompt, ends a turn of the model, or begins a turn of the conversation."""

_SHOWN_CHARACTERS = 60


class LlamaGuardShield:
    """Asks a model whether the last message is safe.

    The prompt goes as one user message. That works with every chat model behind any endpoint, and Llama Stack does the
    same. But where a Llama Guard is served with its own chat template, as vLLM and Ollama do, that template writes the
    prompt a second time around it: the model then judges all of the first one as something that a user says, by the
    template's own categories, so that it may find in an answer what only the question before it holds. `own_template:
    true` is for those: the conversation goes as it is, and the template writes the only prompt.
    """

    def __init__(self, provider: LlamaGuard, config: ShieldConfig, ask: Ask) -> None:
        self._provider = provider
        self._config = config
        self._ask = ask
        self._categories = provider.categories or CATEGORIES

    async def look(self, said: Sequence[Said]) -> SafetyViolation | None:
        """Return what the model finds in the last message; there is nothing to find in an empty one.

        Raises:
            UnavailableError: it does not answer, or neither `safe` nor `unsafe` and categories.
        """
        if not said[-1].text.strip():
            return None
        codes = self._read(await self._answer(said))
        if codes is None:
            return None
        return SafetyViolation(
            violation_level=self._config.violation_level,
            user_message=self._config.user_message,
            metadata={"categories": {code: self._name(code) for code in codes}},
        )

    async def close(self) -> None:
        """Nothing is open."""

    async def _answer(self, said: Sequence[Said]) -> str:
        messages = _turns(said) if self._provider.own_template else [_message("user", prompt(said, self._categories))]
        try:
            return await self._ask(self._provider.model, messages)
        except (NotFoundError, ValueError) as error:
            raise UnavailableError(f"model {self._provider.model}: {error}") from error

    def _read(self, answer: str) -> list[str] | None:
        try:
            return read_answer(answer)
        except ValueError as error:
            raise UnavailableError(f"model {self._provider.model}: {error}") from error

    def _name(self, code: str) -> str | None:
        """Return the first line of what a category is; None: the model made it up."""
        return self._categories[code].partition("\n")[0].rstrip(" .") if code in self._categories else None


def prompt(said: Sequence[Said], categories: Mapping[str, str]) -> str:
    """Return Llama Guard 3's prompt about the last message, without the marks that a chat template adds.

    Args:
        said: the conversation.
        categories: codes and what they are; text behind a first line says more of it.
    """
    turns = (f"{ROLES[one.role]}: {_harmless(one.text)}" for one in said)
    lines = (f"{code}: {text.rstrip(' .')}." for code, text in categories.items())
    return PROMPT.format(role=ROLES[said[-1].role], categories="\n".join(lines), conversation="\n\n".join(turns))


def read_answer(answer: str) -> list[str] | None:
    """Return the codes of the categories that a message is unsafe by, known or not; None: it is safe.

    Raises:
        ValueError: the answer says neither.
    """
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if [line.lower() for line in lines] == ["safe"]:
        return None
    codes = [code.strip() for line in lines[1:2] for code in line.split(",")]
    readable = all(re.fullmatch(CATEGORY_CODE, code) for code in codes)
    if len(lines) in (1, 2) and lines[0].lower() == "unsafe" and readable:
        return list(dict.fromkeys(codes))
    shown = answer.strip()[:_SHOWN_CHARACTERS]
    raise ValueError(
        f"found {shown!r}, allowed: safe, or unsafe and a line of category codes; "
        "set the shield's model to one that answers as Llama Guard does"
    )


def _turns(said: Sequence[Said]) -> list[dict[str, str]]:
    """Return the conversation as a Llama Guard's chat template takes it: a user begins, and the roles take turns.

    So messages of one role in a row become one, and are judged together where they are the last.
    """
    turns: list[dict[str, str]] = []
    for one in said:
        if turns and turns[-1]["role"] == one.role:
            turns[-1] = _message(one.role, f"{turns[-1]['content']}\n\n{_harmless(one.text)}")
        else:
            turns.append(_message(one.role, _harmless(one.text)))
    return turns if turns[0]["role"] == "user" else [_message("user", ""), *turns]


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _harmless(text: str) -> str:
    """Return a message that cannot pass for the prompt around it: its marks are broken up, the words stay."""
    return _MARKS.sub(lambda mark: f"{mark[0]} ", text.strip())
