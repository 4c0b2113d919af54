"""What is learned of a conversation, and what every path gives the model: for each template, token for token."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest

from llsflow.data import evaluation_row
from llsflow.data.learned import ANSWER_LEFT_OUT, MESSAGE_LEFT_OUT, NAME_LEFT_OUT, NO_REASONING, REASONING_LEFT_OUT
from llsflow.data.template import prompt_of
from llsflow.data.tokens import MERGED, TokenFacts, TokenSettings, preview, tokenize
from llsflow.errors import DataError
from llsflow.models.protocol import ChatRequest, conversation_of, read_request, wire
from llsflow.schema.training import DatasetFormat
from tests.templates import TEMPLATES, Structure, tokenizer_of
from tests.templates.rows import row

BY_NAME = {structure.name: structure for structure in TEMPLATES}
SEEDS = range(12)
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hello world"}
TWO_TURNS = [USER, ANSWER, {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


def learned(
    tokenizer: Any, *rows: dict[str, Any], data_format: DatasetFormat = DatasetFormat.DIALOG
) -> tuple[list[str], list[list[int]], TokenFacts]:
    """Return what is learned, the ids of each sequence, and the facts."""
    settings = TokenSettings(data_format, train_on_input=False, max_length=10**6, overlong="refuse")
    ends = [] if tokenizer.name_or_path not in BY_NAME else BY_NAME[tokenizer.name_or_path].marks[:1]
    end_ids = tokenizer.convert_tokens_to_ids(list(ends))
    table, facts = tokenize(list(enumerate(rows, 1)), "rows.jsonl", tokenizer, settings, ends=end_ids)
    runs: list[str] = []
    for place in range(len(table.numbers)):
        runs += [piece["text"] for piece in preview(table, place, tokenizer) if piece["loss"]]
    borders = itertools.pairwise(table.offsets.tolist())
    return runs, [table.input_ids[a:b].tolist() for a, b in borders], facts


def applied(tokenizer: Any, asked: dict[str, Any], count: int, *, prompt: bool = False) -> tuple[str, list[int]]:
    """Return what transformers itself makes of a row's first messages: the text and its ids."""
    messages = copy.deepcopy(asked["messages"][:count])
    if "deepseek" in tokenizer.name_or_path:  # this template joins the arguments as text
        for message in messages:
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    given = {"tools": asked.get("tools"), "add_generation_prompt": prompt}
    text = tokenizer.apply_chat_template(messages, tokenize=False, **given)
    return text, tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **given)


@pytest.mark.parametrize("structure", TEMPLATES, ids=lambda structure: structure.name)
def test_training_is_what_transformers_writes_and_learns_the_assistants_own(structure: Structure) -> None:
    tokenizer = tokenizer_of(structure)
    for seed in SEEDS:
        asked = row(structure, seed)
        answers = [place for place, turn in enumerate(asked["messages"]) if turn["role"] == "assistant"]
        runs, sequences, facts = learned(tokenizer, asked)
        expected = [_own(structure, tokenizer, asked, place) for place in answers]
        assert sorted(runs) == sorted(expected), f"seed {seed}"
        if structure.thoughts_opened:  # such a template cannot write what it asks for: the prompt and the answer can
            written = [applied(tokenizer, asked, place, prompt=True)[1] for place in answers]
            assert all(ids[: len(start)] == start for ids, start in zip(sequences, written, strict=True))
        else:
            written = [
                applied(tokenizer, asked, count)[1] for count in (len(asked["messages"]), *(p + 1 for p in answers))
            ]
            assert all(ids in written for ids in sequences)
        # GLM's end mark is the mark of the next turn
        assert facts.ends is (structure.name != "glm4")
        assert not facts.notes or structure.name == "trailing_space"


def _own(structure: Structure, tokenizer: Any, asked: dict[str, Any], place: int) -> str:
    """Return what the assistant itself writes in a turn, by the template's pattern."""
    turn, whole = asked["messages"][place], len(asked["messages"])
    if structure.name == "phi3":  # its last mark comes once, after the last turn
        return structure.owned(applied(tokenizer, asked, whole)[0])[
            sum(message["role"] == "assistant" for message in asked["messages"][:place])
        ]
    own = structure.owned(applied(tokenizer, asked, place + 1)[0])[-1]
    if structure.thoughts_opened:
        thoughts, answer = turn["content"].removeprefix("<think>\n").split("\n</think>\n\n")
        return f"{thoughts}\n</think>\n\n{answer}{structure.marks[0]}"
    if structure.name == "trailing_space":
        text = applied(tokenizer, asked, place + 1)[0]
        start = len(text) - len(own)
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return f" {own}" if any(a < start < b for a, b in offsets) else own
    return own


@pytest.mark.parametrize("structure", TEMPLATES, ids=lambda structure: structure.name)
def test_evaluation_and_engine_are_asked_what_transformers_writes(structure: Structure) -> None:
    tokenizer = tokenizer_of(structure)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    for seed in SEEDS:
        asked = row(structure, seed)
        expected = applied(tokenizer, asked, len(asked["messages"]) - 1, prompt=True)[1]
        conversation, answer = evaluation_row(asked)
        assert ids(prompt_of(tokenizer, conversation)) == expected
        assert answer == asked["messages"][-1]["content"]
        body = json.loads(json.dumps({"model": "m", **wire(conversation)}))
        assert ids(prompt_of(tokenizer, conversation_of(read_request(body, ChatRequest)))) == expected


def test_calls_are_learned_and_tools_are_written() -> None:
    tokenizer = tokenizer_of(BY_NAME["qwen25"])
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'
    tool, last = {"role": "tool", "content": "sunny", "tool_call_id": "x"}, {"role": "assistant", "content": "Sunny."}
    as_text = {"id": "x", **CALL, "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    for turn in (
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [as_text]},
        {"role": "assistant", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None, "reasoning_content": None},
    ):
        for tools in ([WEATHER], json.dumps([WEATHER]), [WEATHER["function"]]):
            asked = {"messages": [USER, turn, tool, last], "tools": tools}
            runs, (ids,), _ = learned(tokenizer, asked)
            assert runs == ["\n" + call, "Sunny.<|im_end|>"] or runs == [call, "Sunny.<|im_end|>"]
            assert '"name": "get_weather", "parameters"' in tokenizer.decode(ids)
        functions = {"messages": [USER, turn, tool, last], "functions": [WEATHER["function"]]}
        assert learned(tokenizer, functions)[1] == [ids]
    spoken = {"messages": [USER, {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}]}
    assert learned(tokenizer, spoken)[0] == [f"Let me look.\n{call}"]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_learned_by_any_of_its_names(name: str) -> None:
    asked = {
        "messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2", name: "one and"}]
    }
    runs, _, facts = learned(tokenizer_of(BY_NAME["qwen3"]), asked)
    assert (runs, facts.notes) == (["<think>\none and\n</think>\n\n2<|im_end|>"], {})
    _, _, facts = learned(tokenizer_of(BY_NAME["llama3"]), asked, asked)
    assert facts.notes == {REASONING_LEFT_OUT: 2}


def test_template_variables_of_a_row_act_and_unknown_ones_are_refused() -> None:
    tokenizer = tokenizer_of(BY_NAME["qwen3"])
    asked = {"messages": [USER, ANSWER]}
    assert learned(tokenizer, asked)[0] == ["<think>\n\n</think>\n\nHello world<|im_end|>"]
    quiet = {**asked, "chat_template_kwargs": {"enable_thinking": False}}
    assert learned(tokenizer, quiet)[0] == ["Hello world<|im_end|>"]
    with pytest.raises(DataError, match=r"rows.jsonl:1: chat_template_kwargs.thinking: .*it reads enable_thinking"):
        learned(tokenizer, {**asked, "chat_template_kwargs": {"thinking": False}})
    with pytest.raises(DataError, match=r"chat_template_kwargs.tokenize is not for the template's own variables"):
        learned(tokenizer, {**asked, "chat_template_kwargs": {"tokenize": True}})


def test_documents_are_written() -> None:
    documents = [{"title": "Foxes", "text": "A fox is red."}]
    _, (ids,), _ = learned(tokenizer_of(BY_NAME["command_r"]), {"messages": [USER, ANSWER], "documents": documents})
    assert "Document: Foxes\nA fox is red." in tokenizer_of(BY_NAME["command_r"]).decode(ids)


@pytest.mark.parametrize("documents", [[{"title": "Foxes", "text": "Hello"}], [{"text": "world"}, {"text": "Hello"}]])
def test_documents_that_the_template_does_not_write_are_refused(documents: list[Any]) -> None:
    asked = {"messages": [USER, ANSWER], "documents": documents}
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template does not write `documents`: set model.chat_"):
        learned(tokenizer_of(BY_NAME["chatml"]), asked)
    with pytest.raises(ValueError, match="does not write `documents`"):
        prompt_of(tokenizer_of(BY_NAME["chatml"]), evaluation_row(asked)[0])


def test_tools_and_calls_are_missed_also_where_their_names_are_in_the_text() -> None:
    user = {"role": "user", "content": "get_weather, please: what does get_weather say?"}
    tokenizer = tokenizer_of(BY_NAME["chatml"])
    with pytest.raises(DataError, match="does not write `tools`"):
        learned(tokenizer, {"messages": [user, ANSWER], "tools": [WEATHER]})
    called = {"role": "assistant", "content": "Let me get_weather.", "tool_calls": [CALL]}
    with pytest.raises(DataError, match="does not write the tool_calls of message 1"):
        learned(tokenizer, {"messages": [user, called]})
    twice = {"role": "assistant", "tool_calls": [CALL, CALL]}
    with pytest.raises(DataError, match=r"does not write the tool_calls of message 1"):
        learned(tokenizer_of(BY_NAME["llama31"]), {"messages": [user, twice], "tools": [WEATHER]})


@pytest.mark.parametrize(
    ("messages", "note"),
    [
        ([{"role": "system", "content": "chat"}, {"role": "user", "content": "Let us chat"}, ANSWER], MESSAGE_LEFT_OUT),
        ([{**USER, "name": "Ann"}, ANSWER], NAME_LEFT_OUT),
    ],
)
def test_what_a_template_leaves_out_is_counted(messages: list[Any], note: str) -> None:
    tokenizer = tokenizer_of(BY_NAME["chatml"])
    assert learned(tokenizer, {"messages": [{**USER, "content": "Hello, chat"}, ANSWER]})[2].notes == {}
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert learned(tokenizer, {"messages": messages})[2].notes == {note: 1}


@pytest.mark.parametrize("name", ["deepseek_r1", "qwq", "qwen3_thinking"])
def test_an_answer_about_thoughts_is_learned_with_its_own(name: str) -> None:
    answer = {"role": "assistant", "content": "<think>\nplan\n</think>\n\nUse the <think> tag."}
    runs, _, facts = learned(tokenizer_of(BY_NAME[name]), {"messages": [USER, answer]})
    (run,) = runs
    assert run.lstrip("\n").startswith("plan\n</think>\n\nUse the <think> tag.")
    assert facts.notes == {}


@pytest.mark.parametrize("trims", [True, False])
def test_offsets_without_white_space_make_no_other_mask(trims: bool) -> None:
    """A byte-level tokenizer says where a token is with its space or, with trim_offsets, without it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["A", ":", "Ġ", "ĠYes", "Y", "e", "s", "o", "ĠA", "?", "</s>", "Ye", "Yes", "ĠYe"]
    merges = [("Y", "e"), ("Ye", "s"), ("Ġ", "Yes"), ("Ġ", "A")]
    vocabulary = {word: place for place, word in enumerate(words)}
    bare = Tokenizer(models.BPE(vocabulary, merges, unk_token="?"))  # type: ignore[arg-type]
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bare.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    bare.post_processor = processors.ByteLevel(trim_offsets=trims)  # type: ignore[assignment]
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>")
    opened = "{% for m in messages %}{{ 'A: ' if m.role == 'assistant' }}{{ m.content }}"
    tokenizer.chat_template = opened + "</s>{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
    runs, _, facts = learned(tokenizer, {"prompt": "o", "completion": "Yes"})
    assert (runs, facts.notes) == ([" Yes</s>"], {MERGED: 1})
    runs, _, facts = learned(tokenizer, {"prompt": "o", "completion": " A"})
    assert (runs, facts.notes) == ([" A</s>"], {}), "the space of the opened turn is a token of its own"


def test_plain_text_needs_no_chat_template() -> None:
    tokenizer = tokenizer_of(BY_NAME["chatml"])
    tokenizer.chat_template = None
    assert learned(tokenizer, {"text": "Hello"})[0] == ["Hello<|im_end|>"]
    with pytest.raises(DataError, match="the tokenizer has no chat template, and only rows of `text` need none"):
        learned(tokenizer, {"messages": [USER, ANSWER]})


def test_answers_of_weight_0_are_not_learned() -> None:
    tokenizer = tokenizer_of(BY_NAME["qwen25"])
    weighted = copy.deepcopy(TWO_TURNS)
    weighted[1]["weight"], weighted[3]["weight"] = 0, 1  # type: ignore[assignment]
    assert learned(tokenizer, {"messages": weighted})[0] == ["2<|im_end|>"]
    weighted[1]["weight"], weighted[3]["weight"] = 1, 0  # type: ignore[assignment]
    assert learned(tokenizer, {"messages": weighted})[0] == ["Hello world<|im_end|>"]
    with pytest.raises(DataError, match=r"no row is left to train on: .* 1 without a token under loss"):
        learned(tokenizer, {"messages": weighted}, data_format=DatasetFormat.INSTRUCT)


def test_the_first_word_of_an_answer_is_learned_where_the_prompt_ends_in_a_space() -> None:
    tokenizer = tokenizer_of(BY_NAME["trailing_space"])
    runs, _, facts = learned(tokenizer, {"prompt": "red fox", "completion": "the"})
    assert runs == [" the</s>"]
    assert facts.notes == {MERGED: 1}


@pytest.mark.parametrize("name", ["gemma2", "mistral_v1"])
@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be brief."}, *TWO_TURNS],
        [ANSWER, *TWO_TURNS],
        [USER, ANSWER, ANSWER],
    ],
    ids=["system", "first", "twice"],
)
def test_a_row_that_the_template_refuses_is_named(name: str, messages: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match=r"^rows.jsonl:1: the chat template refuses this row: \w+") as caught:
        learned(tokenizer_of(BY_NAME[name]), {"messages": messages}, {"messages": messages})
    assert "(the same in 1 more row: 2)" in str(caught.value)


def test_the_mark_after_the_whole_conversation_is_learned_once() -> None:
    runs, sequences, _ = learned(tokenizer_of(BY_NAME["phi3"]), {"messages": TWO_TURNS})
    assert runs == ["Hello world<|end|>", "2<|end|>\n<|endoftext|>"]
    assert len(sequences) == 1


def test_a_template_that_opens_thoughts_is_learned_after_its_own_prompt() -> None:
    """R1 opens each answer with <think>, and leaves the thoughts out of the turns that it writes."""
    tokenizer = tokenizer_of(BY_NAME["deepseek_r1"])
    runs, _, facts = learned(tokenizer, {"messages": [USER, ANSWER]}, data_format=DatasetFormat.INSTRUCT)
    assert runs == ["\n</think>\n\nHello world<｜end▁of▁sentence｜>"]
    assert facts.notes == {NO_REASONING: 1}
    with_thoughts = {"role": "assistant", "content": "Hello world", "reasoning_content": "a greeting"}
    runs, (ids,), facts = learned(tokenizer, {"messages": [USER, with_thoughts]})
    assert (runs, facts.notes) == (["a greeting\n</think>\n\nHello world<｜end▁of▁sentence｜>"], {})
    prompt = tokenizer.apply_chat_template([USER], tokenize=True, add_generation_prompt=True, return_dict=False)
    assert ids[: len(prompt)] == prompt


def test_thoughts_that_a_template_leaves_out_are_counted() -> None:
    """The first R1: it writes no thoughts, and opens none."""
    tokenizer = tokenizer_of(BY_NAME["deepseek_r1"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>\\n", "")
    answer = {"role": "assistant", "content": "<think>\none and one\n</think>\n\n2"}
    runs, _, facts = learned(tokenizer, {"messages": [USER, answer]})
    assert runs == ["\n\n2<｜end▁of▁sentence｜>"]
    assert facts.notes == {REASONING_LEFT_OUT: 1}


def test_a_system_message_that_goes_with_the_last_question_is_in_the_prompt() -> None:
    """Mistral v3 writes it only while a question is the last message, which is how the model is asked."""
    tokenizer = tokenizer_of(BY_NAME["mistral_v3"])
    asked = [{"role": "system", "content": "Be brief."}, USER]
    runs, (ids,), _ = learned(tokenizer, {"messages": [*asked, ANSWER]}, data_format=DatasetFormat.INSTRUCT)
    assert runs == [" Hello world</s>"]
    assert (
        ids
        == tokenizer.apply_chat_template(asked, tokenize=True, return_dict=False)
        + tokenizer(" Hello world</s>", add_special_tokens=False)["input_ids"]
    )


def test_a_first_turn_of_the_assistant_is_learned() -> None:
    greeting = {"role": "assistant", "content": "Hi! How can I help?"}
    runs, _, _ = learned(tokenizer_of(BY_NAME["chatml"]), {"messages": [greeting, USER, ANSWER]})
    assert runs == ["Hi! How can I help?<|im_end|>", "Hello world<|im_end|>"]
    with pytest.raises(DataError, match="the first turn is the assistant's, and where its text begins cannot be seen"):
        learned(tokenizer_of(BY_NAME["llama2"]), {"messages": [greeting, USER, ANSWER]})
    quiet = {**greeting, "weight": 0}
    assert learned(tokenizer_of(BY_NAME["llama2"]), {"messages": [quiet, USER, ANSWER]})[0] == [" Hello world </s>"]


def test_what_a_template_cannot_write_is_refused_or_counted() -> None:
    called = {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}], "tools": [WEATHER]}
    with pytest.raises(DataError, match=r"does not write `tools`: set model.chat_template"):
        learned(tokenizer_of(BY_NAME["zephyr"]), {"messages": TWO_TURNS, "tools": [WEATHER]})
    tokenizer = tokenizer_of(BY_NAME["zephyr"])
    tokenizer.chat_template = tokenizer.chat_template.replace("m.content", "(m.content or '')")
    del called["tools"]
    with pytest.raises(DataError, match="does not write the tool_calls of message 1"):
        learned(tokenizer, called)
    deaf = tokenizer_of(BY_NAME["gemma3"])
    deaf.chat_template = deaf.chat_template.replace("messages[0].content + '\\n\\n'", "'\\n\\n'")
    _, _, facts = learned(deaf, {"messages": [{"role": "system", "content": "Be brief."}, *TWO_TURNS]})
    assert facts.notes == {MESSAGE_LEFT_OUT: 1}
    spoken = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    _, _, facts = learned(tokenizer_of(BY_NAME["llama31"]), {"messages": [USER, spoken], "tools": [WEATHER]})
    assert facts.notes == {ANSWER_LEFT_OUT: 1}


def test_plain_text_is_learned_whole_with_an_end_mark() -> None:
    tokenizer = tokenizer_of(BY_NAME["llama3"])
    runs, (ids, ended), facts = learned(tokenizer, {"text": "the red fox"}, {"text": "again<|eot_id|>"})
    assert runs == ["the red fox<|eot_id|>", "again<|eot_id|>"]
    assert (ids[-1], ended.count(tokenizer.eos_token_id)) == (tokenizer.eos_token_id, 1)
    assert facts.loss_tokens == facts.tokens


def test_pairs_that_are_the_same_once_they_are_cut_are_left_out_and_counted() -> None:
    tokenizer = tokenizer_of(BY_NAME["chatml"])
    settings = TokenSettings(DatasetFormat.INSTRUCT, False, 40, "truncate", pairs=True)
    rows = [
        {"prompt": "the red fox", "chosen": "yes", "rejected": "no"},
        {"prompt": "the red fox", "chosen": "again and " * 30 + "yes", "rejected": "again and " * 30 + "no"},
    ]
    table, facts = tokenize(list(enumerate(rows, 1)), "rows.jsonl", tokenizer, settings)
    assert (facts.rows, facts.sequences, facts.alike, table.numbers.tolist()) == (1, 2, 1, [1, 1])


def test_template_dates_are_fixed() -> None:
    from llsflow.data.template import with_defaults

    tokenizer = tokenizer_of(BY_NAME["llama31"])
    tokenizer.chat_template = with_defaults(tokenizer.chat_template, {}, "2025-01-01")
    assert "Today Date: 01 Jan 2025\n" in tokenizer.apply_chat_template([USER], tokenize=False)
    every = "{{ strftime_now('%A %a %d %-d %B %b %m %Y %y %H:%M %j %%') }}"
    tokenizer.chat_template = with_defaults(every, {}, "2026-03-05")
    assert tokenizer.apply_chat_template([USER], tokenize=False) == "Thursday Thu 05 5 March Mar 03 2026 26 00:00 064 %"


def test_template_variables_for_all_rows_are_defaults() -> None:
    from llsflow.data.template import with_defaults

    tokenizer = tokenizer_of(BY_NAME["qwen3"])
    tokenizer.chat_template = with_defaults(tokenizer.chat_template, {"enable_thinking": False}, None)
    asked = {"messages": [USER, ANSWER]}
    assert learned(tokenizer, asked)[0] == ["Hello world<|im_end|>"]
    loud = {**asked, "chat_template_kwargs": {"enable_thinking": True}}
    assert learned(tokenizer, loud)[0] == ["<think>\n\n</think>\n\nHello world<|im_end|>"]
    with pytest.raises(ValueError, match="reads no such variable: it reads enable_thinking"):
        with_defaults(BY_NAME["qwen3"].text, {"enable_thoughts": False}, None)
    literal = {"enable_thinking": {"a": [1, None, True, 'q"{% x %}'], "b": 1.5}}
    tokenizer.chat_template = with_defaults("{{ enable_thinking | tojson }}", literal, None)
    assert json.loads(tokenizer.apply_chat_template([USER], tokenize=False)) == literal["enable_thinking"]
