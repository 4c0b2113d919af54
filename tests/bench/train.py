"""Trainings on the fixture, in real (not padding) tokens per second: ours, and the peers.

    python tests/bench/train.py FIXTURE KIND [--batch 8 --steps 40 --threads 2 --clock wall]

| ours | beside | |
|---|---|---|
| llsflow | raw, trl-sft | supervised, every weight |
| llsflow-packed | raw, trl-packed | the same rows, packed into sequences of 1,024 tokens, one in a step |
| llsflow-dpo | raw-dpo, trl-dpo | preferences, with the time that the reference takes |
| llsflow-large | trl-large, trl-large-nll | supervised, with a vocabulary of 128,000 tokens: for its memory |
| llsflow-lora-saving | llsflow-lora | adapters, with a checkpoint every 50 steps and without |

`raw` and `raw-dpo` are the floor: plain PyTorch loops over length-sorted batches, no framework at all. All take the
same rows in fp32 with AdamW and clipping; the time runs from the first step to the end of the last, without loading
or (llsflow-lora-saving apart) writing weights. The kinds of TRL run in the peers' environment.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import train_ours
import train_peers
from train_common import CLOCKS, Settings

KINDS = {**train_ours.KINDS, **train_peers.KINDS}


def main() -> None:
    """Measure one kind and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixture", type=Path)
    parser.add_argument("kind", choices=KINDS)
    for name, default in (("batch", 8), ("steps", None), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    kind = KINDS[options.kind]
    settings = Settings(
        fixture=options.fixture,
        model=options.fixture / kind.model,
        batch=options.batch,
        steps=options.steps or kind.steps,
        threads=options.threads,
        clock=CLOCKS[options.clock],
    )
    if not (settings.model / "config.json").is_file():
        parser.error(f"{settings.model} holds no model: make_fixture.py writes it")
    import torch

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    found = kind.train(settings)
    numbers = {"rate": found.tokens / found.seconds, "seconds": round(found.seconds, 2), "tokens": found.tokens}
    print(json.dumps({**numbers, **found.more}))


if __name__ == "__main__":
    main()
