"""What is minimised: the loss of each token, whatever stands beside it in the batch and however it is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llsflow.data.tokens import TokenTable
from llsflow.models import output
from llsflow.models.attention import use_segments
from llsflow.models.load import load_model
from llsflow.models.output import is_plain
from llsflow.training.examples import ExampleTable
from llsflow.training.objectives import losses_under_loss, supervised
from tests.training.test_fit import rows


@pytest.mark.parametrize("flat", [True, False])
def test_logits_in_parts_give_the_same_losses_and_gradients(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, flat: bool
) -> None:
    model = load_model(str(tiny_folder))
    assert is_plain(model)
    if flat:
        use_segments(model)
    batch = ExampleTable(rows(8)).collate(np.arange(8))

    def measured() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        losses = losses_under_loss(model, batch, plain=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    whole = measured()
    assert not output.fills_the_memory(model, batch.weight)
    monkeypatch.setattr(output, "MOST_LOGITS", 5 * 261)
    assert output.fills_the_memory(model, batch.weight)
    parts = measured()
    torch.testing.assert_close(parts[0], whole[0])
    torch.testing.assert_close(parts[1], whole[1])


@pytest.mark.parametrize("change", [{"logits_scaling": 2.0}, {"logits_scaling": 1.0}])
def test_an_output_layer_with_something_after_it_is_not_plain(change: dict[str, float]) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("granite", vocab_size=31, **sizes, **change))
    assert is_plain(model) == (change["logits_scaling"] == 1.0)


def test_packed_rows_have_the_losses_they_have_alone(tiny_folder: Path) -> None:
    """Token by token: positions begin anew and no row sees another."""
    model = load_model(str(tiny_folder))
    table = ExampleTable(rows(8))
    alone = [losses_under_loss(model, table.collate(np.array([row]))) for row in range(8)]
    assert use_segments(model)
    together = losses_under_loss(model, table.collate(np.arange(8)))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flat", [True, False])
def test_the_loss_is_transformers_own(tiny_folder: Path, flat: bool) -> None:
    """Rows one after another, or padded without a mask, against the model's own loss with mask and all logits."""
    model = load_model(str(tiny_folder))
    table = rows(6)
    reference = model(**_padded_by_hand(table)).loss.detach()
    if flat:
        assert use_segments(model)
    batch = ExampleTable(table).collate(np.arange(6))
    with torch.no_grad():
        mine = supervised(model, batch).loss / batch.weight
    assert float(mine) == pytest.approx(float(reference), rel=1e-5)


def _padded_by_hand(table: TokenTable) -> dict[str, torch.Tensor]:
    shape = (len(table.lengths), int(table.lengths.max()))
    ids, mask, labels = (torch.full(shape, fill) for fill in (0, 0, -100))
    for row, (begin, length) in enumerate(zip(table.offsets, table.lengths, strict=False)):
        span = slice(int(begin), int(begin + length))
        ids[row, :length] = torch.from_numpy(table.input_ids[span].astype(np.int64))
        mask[row, :length] = 1
        learned = torch.from_numpy(table.loss_mask[span])
        labels[row, :length] = torch.where(learned, ids[row, :length], -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
