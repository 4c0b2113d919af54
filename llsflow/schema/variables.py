"""Names of a chat template's own variables."""

from __future__ import annotations

from collections.abc import Mapping

RESERVED = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
        *("continue_final_message", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_dict"),
        *("return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs", "strftime_now", "raise_exception"),
    }
)
"""Names that are not for a template's own variables."""


def check_variables(given: Mapping[str, object], where: str) -> None:
    """Refuse names that a chat template's variables cannot have.

    Raises:
        ValueError: such a name.
    """
    for name in given:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"{where}: {name!r} is no name of a variable: write letters, digits and underscores")
        if name in RESERVED:
            raise ValueError(f"{where}.{name} is not for the template's own variables: remove it")
