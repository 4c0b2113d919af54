"""Step `prepare`: rows to token ids with a loss mask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.data.dataset import rows_of, source_at
from llsflow.data.files import NumberedRow
from llsflow.data.tokens import TokenFacts, TokenSettings, TokenTable, check_vocabulary, preview, tokenize
from llsflow.errors import DataError, Mistake
from llsflow.models.describe import context_length, end_token_ids, locate, read_config, vocabulary_size
from llsflow.models.load import load_tokenizer
from llsflow.steps.context import Progress, StepContext
from llsflow.steps.inputs import model_folder

logger = logging.getLogger("llsflow")

PREVIEWED = 3
"""Rows whose mask is shown in the report."""


def run(context: StepContext) -> dict[str, Any]:
    """Write `train/` and, where there is a validation set, `validation/`."""
    where = context.step.locations
    model = model_folder(context)
    tokenizer = load_tokenizer(model, **where["tokenizer"], needs_template=False)
    settings = token_settings(context.step.settings["tokens"], model, where["tokenizer"]["revision"])
    facts: dict[str, TokenFacts] = {}
    for part in ("train", "validation"):
        if part not in where["data"]:
            continue
        facts[part], table = _tokenize(context, part, tokenizer, settings)
        warn(facts[part], source_name(where["data"][part]))
        if part == "train":
            shown = [preview(table, row, tokenizer) for row in range(min(PREVIEWED, len(table.numbers)))]
            home.write_json(context.folder / "preview.json", shown)
    summary = {part: asdict(found) for part, found in facts.items()}
    context.run.log_params(
        {f"{part}.{name}": value for part, found in summary.items() for name, value in found.items() if name != "notes"}
    )
    return summary


def token_settings(keyed: dict[str, Any], model: str, revision: str | None = None) -> TokenSettings:
    """Return what decides the ids; where the plan could not look up the model's context, it is looked up here.

    Args:
        keyed: the step's settings for tokens; `max_length` is None for a hub id that was not downloaded yet.
        model: folder or hub id, by now on this machine.
        revision: of the hub id.

    Raises:
        DataError: the model does not say its context.
    """
    if keyed["max_length"] is not None:
        return TokenSettings(**keyed)
    folder = locate(model, revision)
    context = context_length(read_config(folder)) if folder else None
    if context is None:
        raise DataError([Mistake("recipe.max_length", f"the model {model!r} does not say its context: set it")])
    return TokenSettings(**{**keyed, "max_length": context})


def tokens_of(
    rows: Sequence[NumberedRow],
    name: str,
    tokenizer: Any,
    settings: TokenSettings,
    folder: Path | None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[TokenTable, TokenFacts]:
    """Return the rows as tokens that the model of the folder knows; None: it does not exist yet.

    Raises:
        DataError: rows that cannot be used, or tokens that the model has no embedding for.
    """
    ends = end_token_ids(folder) if folder else frozenset()
    table, facts = tokenize(rows, name, tokenizer, settings, on_progress, ends)
    size = vocabulary_size(read_config(folder)) if folder else None
    if size is not None:
        check_vocabulary(table, size, name, tokenizer)
    return table, facts


def warn(facts: TokenFacts, name: str) -> None:
    """Log what may well be meant, but should be known."""
    if not facts.ends:
        logger.warning("%s: no end mark is under loss, so the model will not learn where an answer stops", name)
    for count, what in (
        (facts.truncated, "cut"),
        (facts.dropped, "dropped"),
        (facts.without_loss, "left out: no loss"),
        (facts.alike, "left out: chosen and rejected are the same tokens once they are cut"),
        *((count, note) for note, count in facts.notes.items()),
    ):
        if count:
            logger.warning("%s: %d rows %s", name, count, what)


def source_name(place: dict[str, Any]) -> str:
    """Return how messages name a data set."""
    return str(place["path"] or f"rows of {place['dataset_id']}")


def _tokenize(
    context: StepContext, part: str, tokenizer: Any, settings: TokenSettings
) -> tuple[TokenFacts, TokenTable]:
    data = context.step.locations["data"][part]
    source = source_at(data)
    rows = rows_of(source, data["dataset_id"])
    table, facts = tokens_of(
        rows,
        source.name,
        tokenizer,
        settings,
        locate(model_folder(context), context.step.locations["tokenizer"]["revision"]),
        lambda done: context.report(Progress(done, len(rows), f"{part} rows")),
    )
    table.save(context.folder / part)
    digest = context.step.settings["data"][part]["digest"]
    context.run.log_dataset(data["dataset_id"], digest, len(rows), source.name, context="training")
    return facts, table
