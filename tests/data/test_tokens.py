"""Token ids and loss masks: what is learned is what the assistant wrote, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llsflow.data.conversation import Conversation
from llsflow.data.learned import begins_inside, mask_of
from llsflow.data.template import render
from llsflow.data.tokens import TokenSettings, TokenTable, preview, tokenize
from llsflow.errors import DataError
from llsflow.models.load import load_tokenizer
from llsflow.schema.training import DatasetFormat

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Où?"},
    {"role": "assistant", "content": "Là-bas 🙂"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return load_tokenizer(tiny_folder)


def settings(**changes: Any) -> TokenSettings:
    base = {"data_format": DatasetFormat.DIALOG, "train_on_input": False, "max_length": 500, "overlong": "refuse"}
    return TokenSettings(**{**base, **changes})


def learned(tokenizer: Any, rows: list[dict[str, Any]], **changes: Any) -> list[str]:
    table, _ = tokenize(list(enumerate(rows, 1)), "rows", tokenizer, settings(**changes))
    pieces = preview(table, 0, tokenizer)
    return [piece["text"] for piece in pieces if piece["loss"]]


def test_dialog_learns_every_assistant_turn_with_its_end(tokenizer: Any) -> None:
    assert learned(tokenizer, [{"messages": TURNS}]) == ["Là-bas 🙂<|end|>", "Yes<|end|>"]


def test_instruct_learns_the_last_answer_only(tokenizer: Any) -> None:
    assert learned(tokenizer, [{"messages": TURNS}], data_format=DatasetFormat.INSTRUCT) == ["Yes<|end|>"]


def test_train_on_input_learns_everything(tokenizer: Any) -> None:
    assert learned(tokenizer, [{"messages": TURNS}], train_on_input=True) == [
        render(tokenizer, Conversation(TURNS))  # type: ignore[arg-type]
    ]


def test_ids_are_the_templates_own(tokenizer: Any) -> None:
    table, facts = tokenize([(1, {"messages": TURNS})], "rows", tokenizer, settings())
    expected = tokenizer.apply_chat_template(TURNS, tokenize=True, return_dict=False)
    assert table.input_ids.tolist() == expected
    assert facts.ends


def test_the_arrays_survive_the_disk(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "p" * n, "completion": "c"} for n in (1, 5, 3)]
    table, facts = tokenize(list(enumerate(rows, 1)), "rows", tokenizer, settings())
    table.save(tmp_path)
    loaded = TokenTable.load(tmp_path)
    for name in ("input_ids", "loss_mask", "offsets", "numbers"):
        assert np.array_equal(getattr(table, name), getattr(loaded, name))
    assert loaded.lengths.tolist() == [int(n) for n in np.diff(loaded.offsets)]
    assert facts.longest == max(loaded.lengths)


def test_too_long_rows(tokenizer: Any) -> None:
    rows = [(1, {"prompt": "p", "completion": "c" * 4}), (2, {"prompt": "p", "completion": "c" * 40})]
    with pytest.raises(DataError, match=r"(?s)rows:2: \d+ tokens: allowed are 20.*recipe.overlong=truncate"):
        tokenize(rows, "rows", tokenizer, settings(max_length=20))
    table, facts = tokenize(rows, "rows", tokenizer, settings(max_length=20, overlong="truncate"))
    assert (facts.truncated, facts.rows, facts.longest) == (1, 2, 20)
    assert table.lengths.max() == 20
    _, facts = tokenize(rows, "rows", tokenizer, settings(max_length=20, overlong="drop"))
    assert (facts.dropped, facts.rows) == (1, 1)


def test_a_row_cut_before_its_answer_is_left_out_and_counted(tokenizer: Any) -> None:
    rows = [(1, {"prompt": "p" * 40, "completion": "c"}), (2, {"prompt": "p", "completion": "c"})]
    _, facts = tokenize(rows, "rows", tokenizer, settings(max_length=20, overlong="truncate"))
    assert (facts.rows, facts.truncated, facts.without_loss) == (1, 1, 1)


def test_no_token_under_loss_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no row is left to train on"):
        tokenize(
            [(1, {"prompt": "p" * 40, "completion": "c"})],
            "rows",
            tokenizer,
            settings(max_length=20, overlong="truncate"),
        )


def test_a_template_without_prompt_marks_all_tokens_and_is_refused(tiny_folder: Path) -> None:
    only_answers = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
    with pytest.raises(DataError, match="all 2 tokens carry loss"):
        tokenize(
            [(1, {"prompt": "p", "completion": "c"})], "rows", load_tokenizer(tiny_folder, only_answers), settings()
        )


REWRITING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content if loop.last or m.role == 'user' else m.content | upper }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_template_that_rewrites_earlier_turns_is_written_turn_by_turn(tiny_folder: Path) -> None:
    rewriting = load_tokenizer(tiny_folder, REWRITING)
    rows = [(1, {"messages": TURNS}), (2, {"messages": TURNS[1:3]})]
    table, facts = tokenize(rows, "rows", rewriting, settings())
    shown = [
        "".join(f"[{p['text']}]" if p["loss"] else p["text"] for p in preview(table, n, rewriting)) for n in (0, 1)
    ]
    assert shown == [
        "<|system|>BE BRIEF.<|end|><|user|>Où?<|end|><|assistant|>[Là-bas 🙂<|end|>]",
        "<|system|>BE BRIEF.<|end|><|user|>Où?<|end|><|assistant|>LÀ-BAS 🙂<|end|><|user|>Sure?<|end|><|assistant|>"
        "[Yes<|end|>]",
    ]
    assert (facts.rows, facts.sequences, table.numbers.tolist()) == (2, 3, [1, 1, 2])


def test_the_white_space_after_an_end_mark_is_not_learned(tiny_folder: Path) -> None:
    """The model stops at the mark: nobody ever asks it for more."""
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    opened = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    found = learned(load_tokenizer(tiny_folder, template + opened), [{"messages": TURNS}])
    assert found == ["Là-bas 🙂<|im_end|>", "Yes<|im_end|>"]
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    found = learned(
        load_tokenizer(tiny_folder, plain + "{% if add_generation_prompt %}assistant:{% endif %}"),
        [{"messages": TURNS}],
    )
    assert found == [" Là-bas 🙂\n", " Yes\n"]


def test_a_token_is_learned_that_has_a_character_in_a_span() -> None:
    offsets = [(0, 2), (2, 5), (5, 6), (6, 9)]
    assert mask_of(offsets, [(2, 6)]) == [False, True, True, False]
    assert mask_of(offsets, [(0, 1), (5, 7)]) == [True, False, True, True]
    assert mask_of(offsets, [(3, 6)]) == [False, True, True, False]
    assert mask_of(offsets, []) == [False] * 4
    assert [begins_inside(offsets, [(start, 6)]) for start in (2, 3, 5)] == [False, True, False]
