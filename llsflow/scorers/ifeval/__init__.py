"""basic::ifeval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llsflow.schema.scoring import AggregationFunctionType
from llsflow.scorers.base import Params, Scorer, ScoreRow, generated_text, json_column, unscored
from llsflow.scorers.ifeval.instructions import INSTRUCTIONS, Instruction, check_of

COLUMNS = ("instruction_id_list", "kwargs")


class IfEval(Scorer):
    """The share of a row's instructions that the generated answer follows, by the strict rule.

    `instruction_id_list` names the instructions, `kwargs` holds the arguments of each (null ones count as absent);
    both may be JSON. `weight` is their number, so that the weighted average is the share of all instructions;
    `followed` and `not_followed` name them. An answer of white space follows none. A row with an unknown instruction,
    or with arguments that are not an instruction's, is unscored.

    Source: Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models", arXiv:2311.07911.
    """

    id = "basic::ifeval"
    columns = COLUMNS
    aggregations = (AggregationFunctionType.WEIGHTED_AVERAGE,)

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        return _score


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = generated_text(row, *COLUMNS)
        instructions = [*_instructions(row)]
    except ValueError as error:
        return unscored(str(error))
    blank = not answer.strip()
    followed: list[str] = []
    not_followed: list[str] = []
    for name, follows in instructions:
        (followed if not blank and follows(answer) else not_followed).append(name)
    return {
        "score": len(followed) / len(instructions),
        "weight": float(len(instructions)),
        "followed": followed,
        "not_followed": not_followed,
    }


def _instructions(row: Mapping[str, Any]) -> list[tuple[str, Instruction]]:
    """Return the row's instructions, each with the function that says whether a text follows it.

    Raises:
        ValueError: a column or an argument cannot be used, and why.
    """
    names, arguments = (json_column(row, column) for column in COLUMNS)
    if not isinstance(names, list) or not names:
        raise ValueError("instruction_id_list holds no list of instructions")
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise ValueError(f"kwargs is no list of {len(names)} records, one for each instruction")
    found = []
    for number, (name, given) in enumerate(zip(names, arguments, strict=True)):
        if not isinstance(given, Mapping):
            raise ValueError(f"kwargs[{number}] is no record")
        found.append((str(name), check_of(name, {key: value for key, value in given.items() if value is not None})))
    return found


__all__ = ["INSTRUCTIONS", "IfEval"]
