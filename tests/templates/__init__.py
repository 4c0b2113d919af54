"""Chat templates with the structures that published models have, each written for these tests.

A template is a file of this folder; `TEMPLATES` says what it writes and how its assistant's own text is found in what
it wrote, by a pattern that knows nothing of the code under test.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Structure:
    """One template, and what is known of it."""

    name: str
    own: str
    """Pattern of the assistant's turns in a written conversation; its first group is the assistant's own text."""
    marks: Sequence[str]
    """Tokens of their own that it writes; the first ends an answer and is the tokenizer's end mark."""
    bos: str | None = None
    system: bool = True
    tools: bool = False
    reasoning: bool = False
    calls_need_ids: bool = False
    one_call: bool = False
    text_beside_calls: bool = True
    """Whether a turn with calls may have text too."""
    answers_calls_as: str = "tool"
    thoughts_opened: bool = False
    """The opened turn begins the reasoning, and the written turn does not hold it."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    eos: str | None = None
    """The tokenizer's end mark, where it is another than the first of `marks`."""

    @property
    def text(self) -> str:
        """Return the Jinja text."""
        return (FOLDER / f"{self.name}.jinja").read_text("utf-8").removesuffix("\n")

    def owned(self, written: str) -> list[str]:
        """Return the assistant's own texts in a written conversation, one for each of its turns."""
        return [found.group(1) for found in re.finditer(self.own, written, re.DOTALL)]


IM = r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"
CHATML = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")

MISTRAL = (
    *("</s>", "<s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
DEEPSEEK = ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
COMMAND = (
    *("<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>"),
    "<BOS_TOKEN>",
)

TEMPLATES = [
    Structure("chatml", IM, CHATML),
    Structure("hermes", IM, CHATML, tools=True),
    Structure("qwen25", IM, CHATML, tools=True),
    Structure("qwen3", IM, CHATML, tools=True, reasoning=True),
    Structure(
        "qwen3_thinking", r"<\|im_start\|>assistant\n<think>\n(.*?<\|im_end\|>)", CHATML, tools=True, reasoning=True
    ),
    Structure("qwen3_no_thinking", r"<\|im_start\|>assistant\n(?:<think>\n\n</think>\n\n)?(.*?<\|im_end\|>)", CHATML),
    Structure("qwq", IM, CHATML, reasoning=True, thoughts_opened=True),
    Structure("smollm3", IM, CHATML, reasoning=True, tools=True),
    Structure("llama2", r"\[/INST\](.*?</s>)", ("</s>", "<s>"), bos="<s>"),
    Structure(
        "llama3",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
        ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>"),
        bos="<|begin_of_text|>",
    ),
    Structure(
        "llama31",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
        ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>"),
        bos="<|begin_of_text|>",
        tools=True,
        one_call=True,
        text_beside_calls=False,
    ),
    Structure("mistral_v1", r"\[/INST\](.*?</s>)", ("</s>", "<s>"), bos="<s>", system=False),
    Structure(
        "mistral_v3",
        r"(?:\[/INST\]|\[/TOOL_RESULTS\])((?:\[TOOL_CALLS\]| ?(?!\[)).*?</s>)",
        MISTRAL,
        bos="<s>",
        tools=True,
        calls_need_ids=True,
        text_beside_calls=False,
        system=False,
    ),
    Structure(
        "mistral_v7",
        r"(?:\[/INST\]|\[/TOOL_RESULTS\])((?:\[TOOL_CALLS\]| ?(?!\[)).*?</s>)",
        (*MISTRAL, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        bos="<s>",
        tools=True,
        calls_need_ids=True,
        text_beside_calls=False,
    ),
    Structure(
        "gemma2",
        r"<start_of_turn>model\n(.*?<end_of_turn>)",
        ("<end_of_turn>", "<start_of_turn>", "<bos>", "<eos>"),
        bos="<bos>",
        system=False,
        eos="<eos>",
    ),
    Structure(
        "gemma3",
        r"<start_of_turn>model\n(.*?<end_of_turn>)",
        ("<end_of_turn>", "<start_of_turn>", "<bos>", "<eos>"),
        bos="<bos>",
        eos="<eos>",
    ),
    Structure(
        "phi3",
        r"<\|assistant\|>\n(.*?<\|end\|>(?:\n<\|endoftext\|>)?)",
        ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    ),
    Structure(
        "phi4",
        r"<\|im_start\|>assistant<\|im_sep\|>(.*?<\|im_end\|>)",
        ("<|im_end|>", "<|im_start|>", "<|im_sep|>"),
    ),
    Structure(
        "deepseek_v3",
        r"<｜Assistant｜>(.*?<｜end▁of▁sentence｜>)",
        (*DEEPSEEK, *(f"<｜tool▁{name}｜>" for name in ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end"))),
        bos="<｜begin▁of▁sentence｜>",
        tools=True,
    ),
    Structure(
        "deepseek_r1",
        r"<｜Assistant｜>(.*?<｜end▁of▁sentence｜>)",
        DEEPSEEK,
        bos="<｜begin▁of▁sentence｜>",
        reasoning=True,
        thoughts_opened=True,
    ),
    Structure(
        "command_r",
        r"<\|START_OF_TURN_TOKEN\|><\|CHATBOT_TOKEN\|>(.*?<\|END_OF_TURN_TOKEN\|>)",
        COMMAND,
        bos="<BOS_TOKEN>",
        tools=True,
    ),
    Structure(
        "gpt_oss",
        r"<\|start\|>assistant((?:<\|channel\|>analysis<\|message\|>[^<]*<\|end\|><\|start\|>assistant)?"
        r"(?: to=functions\.\w+)?<\|channel\|>\w+(?: json)?<\|message\|>.*?(?:<\|return\|>|<\|call\|>|<\|end\|>))",
        ("<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"),
        tools=True,
        one_call=True,
        reasoning=True,
        text_beside_calls=False,
    ),
    Structure(
        "granite",
        r"<\|start_of_role\|>assistant<\|end_of_role\|>(.*?<\|end_of_text\|>)",
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        tools=True,
    ),
    Structure("zephyr", r"<\|assistant\|>\n(.*?</s>)", ("</s>", "<s>")),
    Structure("trailing_space", r"\[/INST\] (.*?</s>)", ("</s>", "<s>"), bos="<s>", system=False),
    Structure("vicuna", r"ASSISTANT:( .*?</s>)", ("</s>", "<s>"), bos="<s>"),
    Structure(
        "glm4",
        r"<\|assistant\|>(\n.*?)(?=<\|user\|>|<\|observation\|>|$)",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "[gMASK]", "<sop>"),
        tools=True,
        one_call=True,
        text_beside_calls=False,
        eos="<|user|>",
    ),
]


@functools.cache
def _trained() -> str:
    """Return the JSON of a tokenizer over bytes with merges, of which many begin with a space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    words = "the red fox asks again and the lazy dog answers yes or no to what is sunny in Paris today"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([words] * 9, trainer)
    return str(tokenizer.to_str())


def tokenizer_of(structure: Structure) -> Any:
    """Return a tokenizer with the template and the marks that it writes as tokens of their own."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    tokenizer = make(
        tokenizer_object=Tokenizer.from_str(_trained()),
        eos_token=structure.eos or structure.marks[0],
        bos_token=structure.bos,
        pad_token=structure.eos or structure.marks[0],
        additional_special_tokens=list(structure.marks),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = structure.text
    tokenizer.name_or_path = structure.name
    return tokenizer
