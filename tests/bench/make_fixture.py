"""Build the fixture that every training and evaluation measurement shares.

Writes `model/` (a small random Llama with a byte-level BPE tokenizer and a chat template), `sft.jsonl`
(conversations of very uneven length), `dpo.jsonl` (prompt, chosen, rejected) and `qa.jsonl` (question, answer) to a
folder; the same for a seed. With --large it writes `large/` beside a `model/` that is there: the same tokenizer, and
a model of two layers with a vocabulary of 128,000 tokens.

    python tests/bench/make_fixture.py FOLDER [--hidden 256 --layers 6 --rows 1024 --seed 0] [--large]
"""

from __future__ import annotations

import argparse
import json
import random
import string
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role']=='assistant' %}"
    "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LARGE_VOCABULARY = 128_000
LARGE_LAYERS = 2
MARKS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


class Speaker:
    """Says random words: mostly few, sometimes many."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - rows to measure with, not secrets
        self.words = [self._word() for _ in range(3000)]

    def _word(self) -> str:
        return "".join(self.draw.choice(string.ascii_lowercase) for _ in range(self.draw.randint(2, 9)))

    def say(self, fewest: int, usual: int, most: int | None = None) -> str:
        """Return `fewest` to `usual` words, or one time in five up to `most`."""
        upto = usual if most is None or self.draw.random() < 0.8 else most
        return " ".join(self.draw.choice(self.words) for _ in range(self.draw.randint(fewest, upto)))


def write_rows(folder: Path, count: int, seed: int) -> list[str]:
    """Write the files of rows and return every text of the conversations."""
    speaker = Speaker(seed)
    sft = []
    for _ in range(count):
        question, answer = speaker.say(3, 20, 160), speaker.say(2, 12, 120)
        sft.append({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    say = speaker.say
    dpo = [{"prompt": say(5, 60), "chosen": say(5, 40), "rejected": say(5, 40)} for _ in range(count)]
    qa = [{"question": speaker.say(3, 20, 160), "answer": speaker.say(1, 4)} for _ in range(count)]
    for name, rows in (("sft", sft), ("dpo", dpo), ("qa", qa)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [turn["content"] for row in sft for turn in row["messages"]]


def write_model(folder: Path, texts: list[str], options: argparse.Namespace) -> int:
    """Write the tokenizer and the model, and return the number of parameters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(options.seed)
    bpe: Any = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", padding_side="left")
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=int(options.hidden * 2.75),
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model: Any = LlamaForCausalLM(config)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return sum(parameter.numel() for parameter in model.parameters())


def write_large(folder: Path, seed: int) -> int:
    """Write the model with a large vocabulary, and return the number of parameters."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config: Any = LlamaConfig.from_pretrained(folder / "model")
    config.vocab_size, config.num_hidden_layers = LARGE_VOCABULARY, LARGE_LAYERS
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder / "large")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "large")
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Read the options and write the fixture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("hidden", 256), ("layers", 6), ("rows", 1024), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--large", action="store_true", help="the model with a large vocabulary alone")
    options = parser.parse_args()
    if options.large:
        print(write_large(options.folder, options.seed), "parameters")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    texts = write_rows(options.folder, options.rows, options.seed)
    print(write_model(options.folder, texts, options), "parameters")


if __name__ == "__main__":
    main()
