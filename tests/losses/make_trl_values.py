"""Write TRL's own losses of preferences to a file that the tests hold ours against.

    .venv-peers/bin/python tests/losses/make_trl_values.py tests/losses/trl_values.json MODEL

TRL's DPOTrainer computes each loss on a small Llama (MODEL: the fixture of tests/bench) and its reference; what is kept
are the log-probabilities that it computed, the number of tokens of each answer, and its loss.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

PAIRS = [
    ("What is it?", "A cat.", "A dog, or so they say."),
    ("And now?", "Still the same cat, asleep.", "Nothing."),
    ("Why?", "It is tired after a long day.", "Who knows why cats do what they do."),
    ("Sure?", "Yes.", "No."),
]


def measure(trainer: Any, name: str) -> dict[str, Any]:
    """Return what TRL makes of the pairs, as one batch."""
    batch = next(iter(trainer.get_train_dataloader()))
    kept: dict[str, Any] = {}
    original = trainer.model.forward
    logps: list[torch.Tensor] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        logps.append(output.logits.detach())
        return output

    trainer.model.forward = forward
    loss = trainer.compute_loss(trainer.model, batch)
    trainer.model.forward = original
    mask = batch["completion_mask"][:, 1:].bool()
    labels = batch["input_ids"][:, 1:]
    with torch.no_grad():
        reference = trainer.ref_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for key, logits in (("policy", logps[0]), ("reference", reference)):
        nats = torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, labels[..., None])[..., 0]
        kept[key] = torch.stack((nats * mask).sum(1).chunk(2), dim=1).tolist()
    kept["tokens"] = torch.stack(mask.sum(1).chunk(2), dim=1).tolist()
    kept["loss"] = float(loss.detach())
    return {"loss_type": name, **kept}


def main(target: Path) -> None:
    """Measure every loss that TRL has of ours."""
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer  # type: ignore[import-not-found, unused-ignore]

    folder = sys.argv[2]
    rows = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    found = []
    for name in ("sigmoid", "hinge", "ipo"):
        torch.manual_seed(0)
        model, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
        with torch.no_grad():  # the policy has moved
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        config = DPOConfig(
            output_dir=tempfile.mkdtemp(),
            beta=0.3,
            loss_type=[name],
            per_device_train_batch_size=len(PAIRS),
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        )
        trainer = DPOTrainer(
            model=model,
            ref_model=reference,
            args=config,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
        found.append({"beta": 0.3, **measure(trainer, name)})
    target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
