"""Evaluation by generation on the fixture, in rows per second: ours, and the peers.

    python tests/bench/generate.py FIXTURE {llsflow|sorted-batch|lm-eval|one-by-one} [--rows 128 --batch 16 …]
                                   [--system 400]

`sorted-batch` is the floor: transformers' generate over length-sorted, left-padded batches, and no scoring.
With `--system` every row begins with a system prompt of so many tokens.
All generate greedily in fp32; `llsflow` and `lm-eval` also score the rows within the time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu: processor time, which other processes on the machine disturb far less; with one thread."""
TASK = """task: fixture_qa
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["<|end|>"], max_gen_toks: {tokens}, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def llsflow(options: argparse.Namespace) -> tuple[float, float | None]:
    """Evaluate by llsflow.evals over llsflow.models.local, as the evaluate step of a plan does."""
    from llsflow.evals import evaluate
    from llsflow.models.local import LocalModel
    from llsflow.schema.sampling import SamplingParams

    model = LocalModel.load(options.fixture / "model", dtype="fp32", device="cpu")
    sampling = SamplingParams(max_tokens=options.max_tokens)

    def generate(conversations: list[Any]) -> list[str]:
        generations = model.generate(conversations, sampling, batch_size=options.batch)
        return [generation.text for generation in generations]

    rows, clock = _rows(options), CLOCKS[options.clock]
    began = clock()
    response = evaluate(rows, generate, ["basic::equality"], system_message=_system(options))
    seconds = clock() - began
    return seconds, response.scores["basic::equality"].aggregated_results["accuracy"]["accuracy"]


def hugging_face(options: argparse.Namespace) -> tuple[float, float | None]:
    """Generate by transformers alone, in sorted batches or one row after another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(options.fixture / "model")
    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(options.fixture / "model", dtype=torch.float32).eval()

    system = _system(options)
    before = [{"role": "system", "content": system}] if system else []

    def answer(batch: list[dict[str, str]]) -> list[str]:
        conversations = [[*before, {"role": "user", "content": row["question"]}] for row in batch]
        prompts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
        )
        with torch.inference_mode():
            made = model.generate(**encoded, max_new_tokens=options.max_tokens, do_sample=False)
        answers: list[str] = tokenizer.batch_decode(made[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        return answers

    rows, size = _rows(options), options.batch if options.kind == "sorted-batch" else 1
    clock = CLOCKS[options.clock]
    began = clock()
    if size > 1:
        rows.sort(key=lambda row: len(row["question"]))
    for start in range(0, len(rows), size):
        answer(rows[start : start + size])
    return clock() - began, None


def lm_eval(options: argparse.Namespace) -> tuple[float, float | None]:
    """Evaluate by EleutherAI's harness."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    from lm_eval import simple_evaluate  # type: ignore[import-not-found, unused-ignore]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found, unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found, unused-ignore]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "qa.jsonl")
        file.write_text("".join(json.dumps(row) + "\n" for row in _rows(options)))
        Path(folder, "task.yaml").write_text(TASK.format(file=file, tokens=options.max_tokens))
        model = HFLM(
            pretrained=str(options.fixture / "model"),
            batch_size=options.batch,
            device="cpu",
            dtype="float32",
            max_length=1024,
        )
        clock = CLOCKS[options.clock]
        began = clock()
        found = simple_evaluate(
            model=model,
            tasks=["fixture_qa"],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            apply_chat_template=True,
            system_instruction=_system(options),
            bootstrap_iters=0,
        )
        return clock() - began, found["results"]["fixture_qa"]["exact_match,none"]


def _system(options: argparse.Namespace) -> str | None:
    """Return the system prompt: so many tokens of the fixture's text."""
    from tokenizers import Tokenizer

    if not options.system:
        return None
    lines = (options.fixture / "sft.jsonl").read_text().splitlines()[: options.system]
    text = " ".join(json.loads(line)["messages"][0]["content"] for line in lines)
    tokenizer = Tokenizer.from_file(str(options.fixture / "model" / "tokenizer.json"))
    return str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids[: options.system]))


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    lines = (options.fixture / "qa.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[: options.rows]]


KINDS = {"llsflow": llsflow, "sorted-batch": hugging_face, "one-by-one": hugging_face, "lm-eval": lm_eval}


def main() -> None:
    """Measure one kind and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixture", type=Path)
    parser.add_argument("kind", choices=KINDS)
    for name, default in (("rows", 128), ("batch", 16), ("max-tokens", 32), ("threads", 2), ("system", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    seconds, accuracy = KINDS[options.kind](options)
    told = {"rate": options.rows / seconds, "seconds": round(seconds, 2)}
    print(json.dumps(told if accuracy is None else {**told, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
