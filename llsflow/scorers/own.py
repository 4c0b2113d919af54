"""A user's own scoring functions: entry points of installed packages, loaded when they are asked for."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llsflow.home import code_digest
from llsflow.scorers.base import Params, Scorer, ScoreRow, unscored

GROUP = "llsflow.scorers"
"""Entry points of this group name a scoring function's id and its class."""


class OwnScorerError(Exception):
    """An entry point cannot be used; the text names it, its package and the reason."""


def own_ids() -> list[str]:
    """Return the ids that installed packages offer, loadable or not."""
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUP)})


def own_scorer(scorer_id: str) -> Scorer | None:
    """Return the scoring function that an installed package offers by this id; None: there is none.

    Raises:
        OwnScorerError: it cannot be loaded, or several packages offer it.
    """
    found = list(importlib.metadata.entry_points(group=GROUP, name=scorer_id))
    if not found:
        return None
    if len({entry.value for entry in found}) > 1:
        packages = ", ".join(sorted(_package(entry) for entry in found))
        raise OwnScorerError(f"{scorer_id!r} is offered by {packages}: uninstall all but one")
    return _load(found[0])


def own_code_digest(scorer: Scorer) -> str:
    """Return the sha256 (hex) of a scoring function's module, or of its whole folder where that is a package."""
    return code_digest(Path(inspect.getfile(type(scorer))))


def guarded(scorer: Scorer, params: Params | None) -> ScoreRow:
    """Return the function of `prepare`, where what fails or is no result leaves its row unscored, with why.

    Raises:
        OwnScorerError: it cannot be prepared.
    """
    try:
        score = scorer.prepare(params)
    except Exception as error:
        raise OwnScorerError(f"{scorer.id!r} cannot be prepared: {type(error).__name__}: {error}") from error

    def one(row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            result = score(row)
            if not isinstance(result, dict) or "score" not in result:
                return unscored(f"the scoring function returned {str(result)[:80]!r}: a dict with `score` is needed")
            json.dumps(result)
        except Exception as error:
            return unscored(f"the scoring function failed: {type(error).__name__}: {error}")
        return result

    return one


def check_own(scorer: Scorer, params: Params | None) -> list[str]:
    """Return a sentence for each thing that is wrong with the parameters of a user's scoring function."""
    try:
        return scorer.check(params)
    except Exception as error:
        return [f"{scorer.id!r} cannot check its parameters ({type(error).__name__}: {error}): mend its check()"]


def _load(entry: importlib.metadata.EntryPoint) -> Scorer:
    where = f"scoring function {entry.name!r} of {_package(entry)} (entry point {entry.value})"
    try:
        loaded = entry.load()
    except Exception as error:
        raise OwnScorerError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (inspect.isclass(loaded) and issubclass(loaded, Scorer)):
        raise OwnScorerError(f"{where} is no class below llsflow.scorers.Scorer: see docs/scorers.md")
    if inspect.isabstract(loaded) or getattr(loaded, "id", None) != entry.name:
        missing = "has no prepare()" if inspect.isabstract(loaded) else f"has the id {getattr(loaded, 'id', None)!r}"
        raise OwnScorerError(f"{where} {missing}: its id must be {entry.name!r}, and prepare() must be written")
    for name in ("columns", "optional_columns", "aggregations", "params_types"):
        if not isinstance(getattr(loaded, name), tuple):
            raise OwnScorerError(f"{where} has {name} {getattr(loaded, name)!r}: a tuple is needed, ('one',) or more")
    try:
        return loaded()
    except Exception as error:
        raise OwnScorerError(f"{where} cannot be made: {type(error).__name__}: {error}") from error


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
