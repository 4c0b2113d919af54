"""`llsflow preview`: rows as the model will read them, with the tokens that it learns coloured; nothing is run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from llsflow.cli.experiment import load, printed
from llsflow.errors import ConfigError, Mistake
from llsflow.plan import compile_plan

if TYPE_CHECKING:
    from llsflow.data.tokens import TokenTable
    from llsflow.schema.plan import Plan, Step

LEARNED, READ = "bold green", "dim"
OPEN, CLOSE = "⟦", "⟧"
"""Around what is learned, where there are no colours."""


def command(options: argparse.Namespace) -> int:
    """Check the experiment as `run` does, and show its first training rows."""
    loaded = load(options)
    if printed(options, loaded):
        return 0
    plan = compile_plan(loaded.experiment, options.config_dir)
    step = next((step for step in plan.steps if step.kind == "prepare"), None)
    if step is None:
        raise ConfigError([Mistake("recipe", "there is none, so nothing is learned: choose one (recipe=sft_full)")])
    show(plan, step, options.rows, Console(highlight=False))
    return 0


def show(plan: Plan, step: Step, count: int, console: Console) -> None:
    """Tokenise the first rows as step `prepare` would, and print them.

    Raises:
        DataError: rows that cannot be used, each with its number.
        ModelError: the tokenizer or its chat template cannot be used.
    """
    from llsflow.data.dataset import DatasetSource, rows_of
    from llsflow.data.tokens import preview
    from llsflow.models.describe import locate
    from llsflow.schema.datasets import DatasetConfig
    from llsflow.steps.prepare import token_settings, tokens_of, warn

    place = step.locations["data"]["train"]
    source = DatasetSource(
        DatasetConfig.model_validate(place["config"]), Path(place["path"]) if place["path"] else None
    )
    rows = rows_of(source, place["dataset_id"])
    tokenizer = _tokenizer(plan, step)
    settings = token_settings(
        step.settings["tokens"], str(step.locations["model"]), step.locations["tokenizer"]["revision"]
    )
    model = step.locations["model"]
    folder = locate(str(model), step.locations["tokenizer"]["revision"]) if model else None
    table, facts = tokens_of(rows[:count], source.name, tokenizer, settings, folder)
    colours = console.color_system is not None and not console.no_color
    for index, number in enumerate(table.numbers):
        where = (f"{source.name}:{number}", "bold")
        which = ("  chosen" if index % 2 == 0 else "  rejected") if settings.pairs else ""
        console.print(Text.assemble(where, which, f"  {_counts(table, index)}"), soft_wrap=True)
        pieces = preview(table, index, tokenizer)
        console.print(_coloured(pieces) if colours else _bracketed(pieces), soft_wrap=True)
        console.print()
    how = "green" if colours else f"{OPEN}…{CLOSE}"
    share = facts.loss_tokens / facts.tokens
    console.print(
        f"{facts.rows} of {len(rows):,} training rows; {how} is learned: {share:.0%} of their tokens "
        f"(data_format: {settings.data_format}, train_on_input: {str(settings.train_on_input).lower()})",
        soft_wrap=True,
    )
    warn(facts, source.name)


def _tokenizer(plan: Plan, step: Step) -> Any:
    from llsflow.models.load import load_tokenizer, template_text, use_template_settings

    init, given = plan.experiment.model.init, step.locations["tokenizer"]
    if init is None:
        return load_tokenizer(str(step.locations["model"]), **given, needs_template=False)
    from llsflow.models.build import tokenizer_of

    tokenizer = tokenizer_of(init)
    if given["chat_template"] is not None:
        tokenizer.chat_template = template_text(given["chat_template"])
    use_template_settings(tokenizer, given["chat_template_kwargs"], given["template_date"])
    return tokenizer


def _counts(table: TokenTable, index: int) -> str:
    begin, end = int(table.offsets[index]), int(table.offsets[index + 1])
    return f"{end - begin:,} tokens, {int(table.loss_mask[begin:end].sum()):,} of them learned"


def _coloured(pieces: list[dict[str, Any]]) -> Text:
    return Text.assemble(*((piece["text"], LEARNED if piece["loss"] else READ) for piece in pieces))


def _bracketed(pieces: list[dict[str, Any]]) -> Text:
    return Text("".join(f"{OPEN}{piece['text']}{CLOSE}" if piece["loss"] else piece["text"] for piece in pieces))
