"""Generation: the answers do not depend on how rows are batched, and every sampling parameter acts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llsflow.data.conversation import Conversation
from llsflow.errors import DataError, ModelError, Stopped
from llsflow.models.decode import Row
from llsflow.models.generation import Generation
from llsflow.models.local import LocalModel, pick_device
from llsflow.models.text import StopText
from llsflow.schema.sampling import SamplingParams, TopKSamplingStrategy, TopPSamplingStrategy
from tests.models.small import ARCHITECTURES, REFUSES_TOOLS, TOKENIZER, ask, make, questions


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_greedy_is_what_transformers_generates_row_by_row(model_type: str) -> None:
    local, rows = make(model_type), questions(6)
    expected = []
    for row in rows:
        prompt = TOKENIZER.apply_chat_template(row.messages, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([TOKENIZER(prompt, add_special_tokens=False)["input_ids"]])
        model: Any = local.model
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        expected.append(TOKENIZER.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    generations = local.generate(rows, SamplingParams(max_tokens=10), batch_size=6)
    assert [generation.text for generation in generations] == expected


@pytest.mark.parametrize("at_once", [1, 2, 6])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_shared_start_and_late_joining_change_no_answer(model_type: str, at_once: int) -> None:
    local = make(model_type)
    system = {"role": "system", "content": "instructions that are the same for all"}
    rows = [row.after([system]) for row in questions(6)]
    alone = [local.generate([row], SamplingParams(max_tokens=n), batch_size=1) for row in rows for n in (3, 9)]
    prompts = [local.render(row) for row in rows for _ in (3, 9)]
    together = [
        local.row(ids, SamplingParams(max_tokens=9 if index % 2 else 3), seed=0, index=index)
        for index, ids in enumerate(local.encode(prompts))
    ]
    local.decode(together, lambda left: None, at_once=at_once)
    assert [local.generation(row, prompts[row.index]) for row in together] == [one for (one,) in alone]


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(max_tokens=24),
        SamplingParams(max_tokens=24, repetition_penalty=1.5),
        SamplingParams(max_tokens=24, stop=["a", "é", "ef"]),
        SamplingParams(max_tokens=24, strategy=TopPSamplingStrategy(temperature=1.5, top_p=0.9)),
        SamplingParams(max_tokens=24, strategy=TopKSamplingStrategy(top_k=40)),
        SamplingParams(),
    ],
    ids=["greedy", "penalty", "stop", "top_p", "top_k", "to the context's end"],
)
def test_batch_size_changes_no_answer(llama: LocalModel, sampling: SamplingParams) -> None:
    rows = questions(9)
    brisk = LocalModel(llama.model, llama.tokenizer)
    brisk.ends = frozenset(range(1, 261, 20))  # so that rows end, and leave the batch, at different steps
    alone = brisk.generate(rows, sampling, batch_size=1, seed=3)
    for batch_size in (2, 4, 64):
        assert brisk.generate(rows, sampling, batch_size=batch_size, seed=3) == alone
    assert len({generation.tokens for generation in alone}) > 3


def test_seeds_repeat_and_differ_by_row(llama: LocalModel) -> None:
    sampling = SamplingParams(max_tokens=12, strategy=TopPSamplingStrategy(temperature=2.0, top_p=None))
    rows = ask(*["the same"] * 4)
    first = llama.generate(rows, sampling, batch_size=4, seed=1)
    assert first == llama.generate(rows, sampling, batch_size=4, seed=1)
    assert first != llama.generate(rows, sampling, batch_size=4, seed=2)
    assert len({generation.text for generation in first}) == 4


def test_generation_says_what_was_asked_how_long_and_why_it_ended(llama: LocalModel) -> None:
    rows = questions(30)
    for generation, row in zip(llama.generate(rows, SamplingParams(max_tokens=7), batch_size=8), rows, strict=True):
        assert generation.prompt == f"<|user|>{row.messages[0]['content']}<|end|><|assistant|>"
        assert generation.tokens <= 7
        assert generation.finish == ("length" if generation.tokens == 7 else "stop")


def test_the_end_mark_ends_a_row_and_is_not_text() -> None:
    local = make(seed=1)
    with torch.no_grad():  # whatever is asked: first the byte "x", then the end mark
        head: Any = local.model
        head.lm_head.weight.zero_()
        head.lm_head = torch.nn.Linear(32, 261)
        head.lm_head.weight.zero_()
        head.lm_head.bias.zero_()
        head.lm_head.bias[1] = 1.0
    (generation,) = local.generate(ask("q"), SamplingParams(max_tokens=5), batch_size=1)
    assert (generation.text, generation.tokens, generation.finish) == ("", 1, "stop")


def test_an_end_that_is_no_special_token_is_not_text_either(llama: LocalModel) -> None:
    (free,) = llama.generate(ask("q"), SamplingParams(max_tokens=9), batch_size=1)
    last = free.text[6]
    ended = LocalModel(llama.model, llama.tokenizer)
    ended.ends = frozenset(TOKENIZER(last)["input_ids"])
    (generation,) = ended.generate(ask("q"), SamplingParams(max_tokens=9), batch_size=1)
    assert generation.text == free.text[: free.text.index(last)]
    assert (generation.tokens, generation.finish) == (len(generation.text) + 1, "stop")


def test_no_max_tokens_goes_to_the_end_of_the_context(llama: LocalModel) -> None:
    unending = LocalModel(llama.model, llama.tokenizer)
    unending.ends = frozenset()
    for generation in unending.generate(questions(5), SamplingParams(), batch_size=5):
        prompt = len(TOKENIZER(generation.prompt, add_special_tokens=False)["input_ids"])
        assert prompt + generation.tokens == 96
        assert generation.finish == "length"


def test_stop_texts_end_the_answer_and_are_no_part_of_it(llama: LocalModel) -> None:
    rows = questions(20)
    free = llama.generate(rows, SamplingParams(max_tokens=30), batch_size=20)
    # two neighbouring characters of an answer: with one token a byte the text always crosses a token's border
    stop = [generation.text[3:5] for generation in free if len(generation.text) > 8][:4]
    stopped = llama.generate(rows, SamplingParams(max_tokens=30, stop=stop), batch_size=20)
    ended = 0
    for before, after in zip(free, stopped, strict=True):
        assert not any(text in after.text for text in stop)
        assert before.text.startswith(after.text)
        if any(text in before.text for text in stop):
            ended += 1
            assert after.finish == "stop"
            assert after.tokens < before.tokens
        else:
            assert after == before
    assert ended >= len(stop)


def test_stop_text_is_seen_when_its_last_byte_arrives() -> None:
    check = StopText(TOKENIZER, ["é!", "longer stop"])
    ids = TOKENIZER("some text é!", add_special_tokens=False)["input_ids"]
    assert [n for n in range(1, len(ids) + 1) if check(ids[:n])] == [len(ids)]


def test_repetition_penalty_looks_at_prompt_and_answer() -> None:
    local = make(seed=2)
    local.ends = frozenset()
    with torch.no_grad():  # all logits are the same and positive, so that the first id not seen yet is chosen
        head: Any = local.model
        head.lm_head = torch.nn.Linear(32, 261)
        head.lm_head.weight.zero_()
        head.lm_head.bias.fill_(1.0)
    rows = ask("a\x02\x00")  # the prompt holds ids 2 and 3 (roles), 1 (end) and the bytes 0 and 2 (ids 5 and 7)
    sampling = SamplingParams(max_tokens=6, repetition_penalty=2.0)
    (generation,) = local.generate(rows, sampling, batch_size=1)
    # ids 0 and 4 are special and leave no text; then come 6, 8, 9, 10
    assert generation.text == "\x01\x03\x04\x05"
    (plain,) = local.generate(rows, SamplingParams(max_tokens=6), batch_size=1)
    assert plain.text == ""


def test_rows_that_do_not_fit_are_refused_together_before_anything_is_generated(llama: LocalModel) -> None:
    told: list[int] = []
    rows = ask("short", "x" * 80, "short", "y" * 90)
    with pytest.raises(DataError) as caught:
        llama.generate(
            rows, SamplingParams(max_tokens=20), batch_size=2, on_generation=lambda index, _: told.append(index)
        )
    (mistake,) = caught.value.mistakes
    assert (mistake.where, mistake.message.rsplit(" (", 1)[1]) == ("row 2", "the same in 1 more row: 4)")
    assert "prompt of 83 tokens and max_tokens 20: the model's context is 96" in str(caught.value)
    with pytest.raises(DataError, match=r"row 1: its prompt of 103 tokens leaves no room to answer.* context is 96"):
        llama.generate(ask("x" * 100), SamplingParams(), batch_size=1)
    with pytest.raises(DataError, match="the same in 7 more rows"):
        llama.generate(ask(*["x" * 100] * 8), SamplingParams(max_tokens=1), batch_size=8)
    assert told == []
    (exact,) = llama.generate(ask("x" * 83), SamplingParams(max_tokens=10), batch_size=1)
    assert exact.tokens <= 10


def test_a_row_that_the_template_refuses_is_named(llama: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*ask("fine"), Conversation([{"role": "tool", "content": "?"}])]
    assert llama.render(rows[1]) == llama.render(ask("?")[0]), "the bytes' own template has no mark for tools"
    monkeypatch.setattr(llama.tokenizer, "chat_template", REFUSES_TOOLS)
    with pytest.raises(DataError, match="row 2: the chat template refuses it: no tools here"):
        llama.generate(rows, SamplingParams(max_tokens=2), batch_size=2)


def test_a_context_nobody_knows_asks_for_max_tokens() -> None:
    bloom = make("bloom")
    assert bloom.context_length is None
    with pytest.raises(ModelError, match="set max_tokens"):
        bloom.generate(ask("a"), SamplingParams(), batch_size=1)


def test_damaged_weights_name_the_row() -> None:
    local = make(seed=4)
    with torch.no_grad():
        embedding: Any = local.model.get_input_embeddings()
        embedding.weight[TOKENIZER.convert_tokens_to_ids("Z")] = float("nan")
    for sampling in (
        SamplingParams(max_tokens=3),
        SamplingParams(max_tokens=3, strategy=TopKSamplingStrategy(top_k=5)),
    ):
        with pytest.raises(ModelError, match=r"row 2: the model's output is not a number after 0 tokens"):
            local.generate(ask("a", "Z", "b"), sampling, batch_size=3)


def test_every_generation_is_told_as_it_ends_and_stopping_stops(llama: LocalModel) -> None:
    told: dict[int, Generation] = {}
    generations = llama.generate(
        questions(11), SamplingParams(max_tokens=6), batch_size=4, on_generation=told.__setitem__
    )
    assert [told[index] for index in range(11)] == generations
    with pytest.raises(Stopped, match=r"\d of 11 rows are done"):
        llama.generate(questions(11), SamplingParams(max_tokens=6), batch_size=4, stopping=lambda: True)


@pytest.mark.parametrize("done", [{0}, {10}, {1, 2, 3, 5, 8}, set(range(11))], ids=str)
def test_going_on_at_the_missing_rows_gives_the_unbroken_answers(llama: LocalModel, done: set[int]) -> None:
    sampling = SamplingParams(max_tokens=12, strategy=TopPSamplingStrategy(temperature=1.5, top_p=0.9))
    whole = llama.generate(questions(11), sampling, batch_size=4, seed=5)
    told: list[int] = []
    again = llama.generate(
        questions(11),
        sampling,
        batch_size=4,
        seed=5,
        done={index: whole[index] for index in done},
        on_generation=lambda index, _: told.append(index),
    )
    assert again == whole
    assert sorted(told) == sorted(set(range(11)) - done)


@pytest.mark.parametrize("at_once", [1, 3, 10])
def test_rows_of_one_batch_keep_their_own_sampling(llama: LocalModel, at_once: int) -> None:
    """What the engine relies on: a row's answer is the same whoever shares its batch, and whenever they joined it."""
    draw = TopPSamplingStrategy(temperature=1.5, top_p=0.9)
    kinds = [
        SamplingParams(max_tokens=9),
        SamplingParams(max_tokens=20, strategy=draw),
        SamplingParams(max_tokens=14, repetition_penalty=1.7),
        SamplingParams(max_tokens=17, strategy=TopKSamplingStrategy(top_k=30), stop=["a"]),
        SamplingParams(max_tokens=20, strategy=draw, repetition_penalty=1.3),
    ]
    asked = questions(10)
    prompts = [llama.render(conversation) for conversation in asked]

    def row(index: int, ids: list[int]) -> Row:
        return llama.row(ids, kinds[index % len(kinds)], seed=index)

    together = [row(index, ids) for index, ids in enumerate(llama.encode(prompts))]
    llama.decode(together, lambda ended: None, at_once=at_once)
    for index, (mixed, conversation) in enumerate(zip(together, asked, strict=True)):
        (alone,) = llama.generate([conversation], kinds[index % len(kinds)], batch_size=1, seed=index)
        assert llama.generation(mixed, alone.prompt) == alone


def test_a_dropped_row_leaves_and_the_others_go_on(llama: LocalModel) -> None:
    unending = LocalModel(llama.model, llama.tokenizer)
    unending.ends = frozenset()
    rows = [unending.row(ids, SamplingParams(max_tokens=20), seed=0) for ids in unending.encode(["ab", "cd", "ef"])]
    left: list[Row] = []

    def on_step(ended: Sequence[Row]) -> None:
        left.extend(ended)
        rows[1].dropped = len(rows[1].made) == 4

    unending.decode(rows, on_step, at_once=3)
    assert [len(row.made) for row in rows] == [20, 5, 20]
    assert left[0] is rows[1]
    assert rows[1].finish is None


def test_no_rows_no_generations(llama: LocalModel) -> None:
    assert llama.generate([], SamplingParams(max_tokens=6), batch_size=4) == []


def test_too_little_memory_names_rows_and_the_way_out(llama: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(llama.model.model, "forward", full)
    # the longest go first, so that the first batch is the one that fails
    with pytest.raises(ModelError, match=r"while generating 2 rows together \(row 3 .* smaller batch_size"):
        llama.generate(ask("a", "ab", "abcd", "abc"), SamplingParams(max_tokens=6), batch_size=2)


def test_load_from_a_folder(tiny_folder: Path) -> None:
    local = LocalModel.load(tiny_folder, device="cpu", chat_template="{{ messages[0].content }}")
    (generation,) = local.generate(ask("abc"), SamplingParams(max_tokens=3), batch_size=1)
    assert generation.prompt == "abc"
    assert local.context_length == 96


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match=r"no device 'tpu' here: found .*cpu, or auto"):
        pick_device("tpu")
