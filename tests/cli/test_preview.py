"""`llsflow preview`: what is learned of a row, before anything is trained."""

from __future__ import annotations

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
