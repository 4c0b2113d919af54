"""Every field of the spec's training schemas acts or is refused: the table of docs/training.md is the list of cases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llsflow.schema import training
from tests.training.fields import (  # noqa: F401 - each enters its cases
    algorithm_config,
    alignment_config,
    data_config,
    efficiency_config,
    optimizer_config,
    training_config,
)
from tests.training.fields.bench import CASES, Bench

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
FIELDS = re.findall(r"^\| `(\w+\.\w+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
RECORDS = (
    training.TrainingConfig,
    training.DataConfig,
    training.OptimizerConfig,
    training.EfficiencyConfig,
    training.LoraFinetuningConfig,
    training.QATFinetuningConfig,
    training.DPOAlignmentConfig,
)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_acts_or_is_refused(field: str, tiny_folder: Path, tmp_path: Path) -> None:
    CASES[field](Bench(tiny_folder, tmp_path / "runs"))


def test_the_table_has_every_field_of_the_spec_once() -> None:
    assert sorted(FIELDS) == sorted(f"{record.__name__}.{name}" for record in RECORDS for name in record.model_fields)
    assert len(set(FIELDS)) == len(FIELDS)
    assert set(CASES) == set(FIELDS)
