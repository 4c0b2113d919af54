"""`llsflow preview`: what is learned of a row, before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from llsflow.cli import main
from llsflow.cli.preview import LEARNED, READ, _coloured


def test_the_answer_alone_is_marked(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "quickstart", *small, "--rows", "2"]) == 0
    told = capsys.readouterr().out
    first, second = told.split("days.csv:")[1:3]
    assert "11 March 1970" in first.split("⟦")[0]
    assert "1970-03-11" in first.split("⟦")[1].split("⟧")[0]
    assert (first.count("⟦"), second.count("⟦")) == (1, 2), "one answer each, and the legend"
    assert "2 of 40 training rows" in told
    assert "data_format: instruct, train_on_input: false" in told


def test_what_the_recipe_says_is_what_is_marked(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*small, "recipe.training_config.data_config.train_on_input=true", "--rows", "1"]
    assert main(["preview", "quickstart", *words]) == 0
    told = capsys.readouterr().out
    assert "11 March 1970" in told.split("⟦")[1].split("⟧")[0]
    assert "100% of their tokens" in told


def test_a_model_that_is_there_brings_its_own_template(
    small: list[str], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in small if not word.startswith("model.")]
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}>{{ m.role }}: {{ m.content }}\n{% endfor %}"
                        "{% if add_generation_prompt %}>assistant: {% endif %}")  # fmt: skip
    model = ["model=folder", f"model.path={tiny_folder}", f"model.chat_template={template}"]
    assert main(["preview", "quickstart", *words, *model, "--rows", "1"]) == 0
    assert ">assistant: ⟦1970-03-11" in capsys.readouterr().out


def preview(model: Path, rows: Path, *words: str) -> int:
    own = ["dataset.hold_out=null", "recipe.training_config.data_config.validation_dataset_id=null"]
    return main(["preview", "sft", *own, f"dataset.uri={rows}", f"model.path={model}", *words])


def written(folder: Path, *rows: str) -> Path:
    """Return a file of rows as they are."""
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{row}\n" for row in rows))
    return file


def with_template(tiny: Path, folder: Path, template: str, *, extra: Sequence[str] = ()) -> Path:
    """Return a copy of a model with another chat template, and further tokens that its embedding does not have."""
    from llsflow.models.load import load_tokenizer

    shutil.copytree(tiny, folder)
    tokenizer = load_tokenizer(folder, template)
    tokenizer.add_tokens(list(extra))
    tokenizer.save_pretrained(folder)
    return folder


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}{{ end }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, '
            '{"role": "assistant", "content": "a"}]}',
            "rows.jsonl:1: the chat template refuses this row: System role not supported",
        ),
        ('{"prompt":"a\\ud83d","completion":"b"}', "rows.jsonl:1: prompt holds text that is not valid Unicode (a lone"),
        ('{"prompt":"a","completion":"b","e":1e400}', "rows.jsonl:1: e is inf, which JSON has not: write null or a"),
        ('{"prompt":"a","completion":"b","prompt":"c"}', "rows.jsonl:1: the key 'prompt' is there twice in one object"),
        ('{"prompt":"Say hi","completion":"GO AWAY","label":false}', "rows.jsonl:1: label is False: prompt+completion"),
        ('{"prompt": "Hello <|extra|>", "completion": "x"}', "rows.jsonl:1: token '<|extra|>' has the id 261, and the"),
    ],
    ids=["template", "surrogate", "infinity", "twice", "label", "vocabulary"],
)
def test_a_row_that_cannot_be_used_is_named(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, sentence: str
) -> None:
    template = NO_SYSTEM.replace("{{ end }}", "<|end|>")
    model = with_template(tiny_folder, tmp_path / "model", template, extra=["<|extra|>"])
    assert preview(model, written(tmp_path, row)) == 1
    assert sentence in capsys.readouterr().err


def test_nan_of_a_parquet_file_names_its_column(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"prompt": ["a", "b"], "completion": ["c", "d"], "f": [float("nan"), 1.5]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert preview(tiny_folder, tmp_path / "rows.parquet") == 1
    assert "rows.parquet:1: f is nan, which JSON has not" in capsys.readouterr().err


def test_columns_that_are_null_are_not_there(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = '[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]'
    rows = written(
        tmp_path,
        '{"messages":null,"prompt":"a","completion":"b"}',
        f'{{"messages":{messages},"prompt":null,"completion":null}}',
    )
    assert preview(tiny_folder, rows) == 0
    assert "2 of 2 training rows" in capsys.readouterr().out


def test_columns_that_nothing_reads_are_named(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = written(
        tmp_path,
        '{"system": "Answer in French.", "prompt": "Hello", "completion": "Bonjour"}',
        '{"context": "Paris is red.", "question": "What colour is Paris?", "answer": "red"}',
    )
    assert preview(tiny_folder, rows) == 0
    assert "columns that nothing reads in training: system (1 rows), context (1 rows)" in caplog.text


def test_columns_have_the_names_that_the_dataset_gives(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = written(tmp_path, '{"q": "Hello", "a": "Hi"}', '{"q": "Bye", "a": "Ciao"}')
    assert preview(tiny_folder, rows) == 1
    told = capsys.readouterr().err
    assert told.count("columns are q, a") == 1
    assert "(the same in 1 more row: 2)" in told
    assert preview(tiny_folder, rows, "dataset.columns={prompt: q, completion: a}") == 0
    assert "⟦Ciao" in capsys.readouterr().out
    assert preview(tiny_folder, rows, "dataset.columns={prompt: q, completion: answer}") == 1
    assert "dataset.columns has completion: answer: the columns here are q, a" in capsys.readouterr().err


def test_an_end_mark_of_the_generation_config_is_one(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gemma ends its turns with a mark that is not the tokenizer's."""
    template = NO_SYSTEM.replace("{{ end }}", "<|turn|>")
    model = with_template(tiny_folder, tmp_path / "model", template)
    rows = written(tmp_path, '{"prompt": "Hello", "completion": "Hello world"}')
    warning = "no end mark is under loss"
    assert preview(model, rows) == 0
    assert warning in caplog.text
    caplog.clear()
    model = with_template(tiny_folder, tmp_path / "ending", NO_SYSTEM.replace("{{ end }}", "<|system|>"))
    config = json.loads((model / "generation_config.json").read_text())
    names = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    mark = next(token["id"] for token in names if token["content"] == "<|system|>")
    (model / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [1, mark]}))
    assert preview(model, rows) == 0
    assert warning not in caplog.text


def test_colours() -> None:
    text = _coloured([{"text": "asked ", "loss": False}, {"text": "[answer]", "loss": True}])
    assert text.plain == "asked [answer]"
    assert [span.style for span in text.spans] == [READ, LEARNED]


def test_mistakes(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "eval", f"model.path={tiny_folder}", "benchmark=iso_dates"]) == 2
    assert "nothing is learned: choose one (recipe=sft_full)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["preview", "quickstart", "--rows", "0"])
    assert "found '0', allowed: an integer of at least 1" in capsys.readouterr().err
