"""DPOAlignmentConfig: what preferences are learned by."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.fields.bench import Bench, case, refused
from tests.training.test_preferences import optimise


@case("DPOAlignmentConfig.beta")
def beta(bench: Bench) -> None:
    gentle, strict = (optimise(bench.folder / str(b), bench.model, beta=b) for b in (0.1, 10.0))
    assert gentle.curves["train/logp_rejected"] != strict.curves["train/logp_rejected"]
    assert gentle.curves["train/loss"][0][1] == pytest.approx(np.log(2), rel=1e-3)
    refused("beta", "recipe=dpo_full", "recipe.alignment_config.beta=0")
    refused("alignment_config: is for kind: dpo", "+recipe.alignment_config.beta=0.1")


@case("DPOAlignmentConfig.loss_type")
def loss_type(bench: Bench) -> None:
    found = {
        name: optimise(bench.folder / name, bench.model, loss_type=name).curves["train/loss"][0][1]
        for name in ("sigmoid", "hinge", "ipo", "kto_pair")
    }
    # before the first step the policy is its reference: every ratio is 0, β is 0.1
    assert found == pytest.approx({"sigmoid": np.log(2), "hinge": 1.0, "ipo": 25.0, "kto_pair": 0.5}, rel=1e-3)
