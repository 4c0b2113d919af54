"""A model in this process: conversations in, generations out, in the caller's order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llsflow.data.conversation import Conversation
from llsflow.data.problems import grouped
from llsflow.data.template import prompt_of
from llsflow.errors import DataError, Mistake, ModelError, Stopped
from llsflow.models.describe import context_length
from llsflow.models.generation import Generation
from llsflow.models.load import load_tokenizer
from llsflow.models.responses import ResponseFormat
from llsflow.models.text import StopText, before_stop, text_of
from llsflow.schema.inference import ResponseFormat as WantedFormat
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from llsflow.models.constrain import Formats
    from llsflow.models.decode import Row

# So many kinds of mistakes are named; the rest are counted.
NAMED_ROWS = 5


class LocalModel:
    """A causal language model with its tokenizer, ready to answer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model: PreTrainedModel = model.train(False)
        self.tokenizer = tokenizer
        self.context_length = context_length(model.config.to_dict())
        self.ends = _end_tokens(model, tokenizer)
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad = next(token for token in candidates if token is not None)

    @cached_property
    def responses(self) -> ResponseFormat:
        """Return how the model's answers are taken apart."""
        return ResponseFormat.of(self.tokenizer)

    @cached_property
    def formats(self) -> Formats:
        """Return what makes constraints for this model's tokens."""
        from llsflow.models.constrain import Formats

        return Formats(self.tokenizer, self.model.config.get_text_config().vocab_size, self.ends)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        dtype: str = "fp32",
        device: str = "auto",
        chat_template: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
        template_date: str | None = None,
    ) -> LocalModel:
        """Return the model of a folder or hub id on `device`: cpu, cuda, mps or auto (the best there is).

        Raises:
            ModelError: a folder, tokenizer or template that cannot be used.
            UnavailableError: a hub id that is not downloaded yet, and the hub does not answer.
        """
        from llsflow.models.adapters import load_merged
        from llsflow.models.generation_attention import use_generation_attention

        tokenizer = load_tokenizer(
            folder, chat_template, revision, trust_remote_code, chat_template_kwargs, template_date
        )
        model = load_merged(
            folder, dtype, device=pick_device(device), revision=revision, trust_remote_code=trust_remote_code
        )
        use_generation_attention(model)
        return cls(model, tokenizer)

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: SamplingParams,
        *,
        batch_size: int,
        seed: int = 0,
        response_format: WantedFormat | None = None,
        done: Mapping[int, Generation] = MappingProxyType({}),
        on_generation: Callable[[int, Generation], None] | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> list[Generation]:
        """Return one generation for each conversation, in their order; those of `done` are not made again.

        The longest are generated first, so that too little memory shows at once. What a row is sampled from
        depends on `seed` and its place alone, not on `batch_size` or `done`. `on_generation` is told each place and
        its generation as it ends.

        Raises:
            DataError: rows that the chat template refuses or that do not fit the context, each with its number.
            ModelError: too little memory, or output that is not a number; names the rows.
            Stopped: `stopping` said so.
        """
        prompts = self._render(conversations)
        rows = self._rows(prompts, sampling, seed, response_format)
        made = dict(done)

        def on_step(ended: Sequence[Row]) -> None:
            for row in ended:
                if row.refused:
                    raise ModelError(f"row {row.number}: {row.refused}")
                made[row.index] = self.generation(row, prompts[row.index])
                if on_generation:
                    on_generation(row.index, made[row.index])
            if stopping and stopping() and len(made) < len(rows):
                raise Stopped(f"stopped while generating: {len(made)} of {len(rows)} rows are done")

        longest_first = sorted(
            (row for row in rows if row.index not in made), key=lambda row: (-len(row.prompt), row.index)
        )
        with _memory_named(longest_first, batch_size):
            self.decode(longest_first, on_step, at_once=batch_size)
        return [made[row.index] for row in rows]

    def answer(
        self, asked: Mapping[int, Conversation], sampling: SamplingParams, *, seed: int, batch_size: int
    ) -> dict[int, Generation]:
        """Return a generation for each conversation, by its place; one that the model cannot take says why."""
        made: dict[int, Generation] = {}
        prompts: dict[int, str] = {}
        rows = []
        for place, conversation in asked.items():
            prompts[place] = ""
            try:
                prompts[place] = self.render(conversation)
                rows.append(self.row(self.encode([prompts[place]])[0], sampling, seed=seed, index=place))
            except ValueError as error:
                made[place] = Generation("", 0, "stop", prompts[place], str(error))

        def on_step(ended: Sequence[Row]) -> None:
            for row in ended:
                prompt = prompts[row.index]
                made[row.index] = (
                    Generation("", 0, "stop", prompt, row.refused) if row.refused else self.generation(row, prompt)
                )

        with _memory_named(rows, batch_size):
            self.decode(rows, on_step, at_once=batch_size)
        return made

    def decode(self, rows: Sequence[Row], on_step: Callable[[Sequence[Row]], None], *, at_once: int) -> None:
        """Generate for `rows`, `at_once` together; `on_step` is told after each step which rows left."""
        from llsflow.models.cache import LEAST
        from llsflow.models.decode import decode
        from llsflow.models.forward import common_start, read_prefix

        start = common_start([row.prompt for row in rows])
        prefix = read_prefix(self.model, start) if len(rows) > 1 and len(start) >= LEAST else None
        decode(self.model, rows, self.ends, self.pad, on_step, at_once=at_once, prefix=prefix)

    def render(self, conversation: Conversation) -> str:
        """Return the conversation as the chat template writes it, with the assistant's turn opened.

        Raises:
            ValueError: the template refuses it, or leaves out its tools or calls.
        """
        return prompt_of(self.tokenizer, conversation)

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each prompt."""
        if not prompts:
            return []
        encoded = self.tokenizer(list(prompts), add_special_tokens=False, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def row(
        self,
        ids: list[int],
        sampling: SamplingParams,
        *,
        seed: int,
        index: int = 0,
        response_format: WantedFormat | None = None,
    ) -> Row:
        """Return a prompt ready to be decoded.

        Raises:
            ValueError: it does not fit the context, or is empty, or the response format cannot be kept to.
            ModelError: neither `sampling` nor the model says where to end.
        """
        from llsflow.models.decode import Row

        if self.context_length is None and sampling.max_tokens is None:
            raise ModelError("max_tokens is null and the model's config.json names no context length: set max_tokens")
        left = None if self.context_length is None else self.context_length - len(ids)
        limit = left if sampling.max_tokens is None else sampling.max_tokens
        assert limit is not None  # noqa: S101 - one of the two is set: refused above
        if why := _misfit(len(ids), limit, sampling.max_tokens, self.context_length):
            raise ValueError(why)
        rng = random.Random(f"{seed}/{index}")  # noqa: S311 - repeatable draws, not secrets
        stop = StopText(self.tokenizer, sampling.stop) if sampling.stop else None
        constraint = self.formats.constraint(response_format) if response_format else None
        return Row(index, ids, limit, rng, sampling, stop, constraint)

    def generation(self, row: Row, prompt: str, *, special: bool = False) -> Generation:
        """Return what a finished row came to; `prompt` is what was rendered for it, `special`: with special tokens."""
        if row.finish is None:
            raise RuntimeError(f"row {row.number} was never finished")
        ids = row.made[:-1] if row.made[-1] in self.ends else row.made
        text, stopped = before_stop(text_of(self.tokenizer, ids, special=special), row.sampling.stop or ())
        return Generation(text, len(row.made), "stop" if stopped else row.finish, prompt)

    def _render(self, conversations: Sequence[Conversation]) -> list[str]:
        prompts: list[str] = []
        mistakes: list[Mistake] = []
        for number, conversation in enumerate(conversations, start=1):
            try:
                prompts.append(self.render(conversation))
            except ValueError as error:
                mistakes.append(Mistake(f"row {number}", str(error)))
        _refuse(mistakes)
        return prompts

    def _rows(
        self, prompts: Sequence[str], sampling: SamplingParams, seed: int, response_format: WantedFormat | None
    ) -> list[Row]:
        rows, mistakes = [], []
        for index, ids in enumerate(self.encode(prompts)):
            try:
                rows.append(self.row(ids, sampling, seed=seed, index=index, response_format=response_format))
            except ValueError as error:
                mistakes.append(Mistake(f"row {index + 1}", str(error)))
        _refuse(mistakes)
        return rows


def pick_device(device: str) -> str:
    """Return the device's name for torch: auto is the best that this machine has.

    Raises:
        ModelError: this machine has no such device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, has in there.items() if has)
    if not there.get(device.split(":", maxsplit=1)[0], False):
        raise ModelError(f"no device {device!r} here: found {', '.join(n for n, has in there.items() if has)}, or auto")
    return device


def out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that memory, the device's or the machine's, did not suffice."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class _memory_named:
    """Turn running out of memory into a sentence that names the rows and the way out."""

    def __init__(self, rows: Sequence[Row], at_once: int) -> None:
        self.batch = rows[:at_once]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None and out_of_memory(error):
            longest = max(len(row.prompt) + row.limit for row in self.batch)
            raise ModelError(
                f"out of memory while generating {len(self.batch)} rows together (row {self.batch[0].number} and "
                f"others, up to {longest:,} tokens each): set a smaller batch_size or max_tokens"
            ) from error


def _misfit(prompt: int, limit: int, max_tokens: int | None, context: int | None) -> str | None:
    if prompt == 0:
        return "the chat template renders it to nothing: check the template"
    if context is None or (max_tokens is None and limit > 0):
        return None
    if prompt + max(limit, 1) <= context:
        return None
    asked = f" and max_tokens {max_tokens}" if max_tokens is not None else " leaves no room to answer"
    return f"its prompt of {prompt} tokens{asked}: the model's context is {context}; shorten one of them"


def _refuse(mistakes: list[Mistake]) -> None:
    if mistakes:
        raise DataError(grouped(mistakes, NAMED_ROWS))


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    config: Any = model.generation_config
    named = config.eos_token_id if config is not None else None
    ends = named if isinstance(named, list) else [named]
    return frozenset(int(end) for end in (*ends, tokenizer.eos_token_id) if end is not None)
