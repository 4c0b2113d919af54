from __future__ import annotations

import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llsflow.report import Comparison, ReportMaterial, Sample, Score, build_report, number, with_interval

HOSTILE = '<script>alert("x")</script> & | `a` *b*\x00\ud800'
MATERIAL = ReportMaterial(
    title="quickstart",
    description="Rewrites dates.",
    verdict="Exact match rises from 0.000 to 0.970.",
    facts={"model": "tiny-llama", "recipe": {"lr": 1e-3}},
    scores=[
        Score("base", "accuracy", 0.0, (0.0, 0.019)),
        Score("tuned", "accuracy", 0.97, (0.936, 0.986)),
        Score("tuned", "median", None),
    ],
    comparisons=[Comparison("accuracy", 0.97, (0.95, 0.99))],
    curves={
        "train/loss": [(step, 5 / step) for step in range(1, 300)],
        "val/loss": [(100, 0.1), (200, math.nan)],
        "train/lr": [(1, 1e-3)],
        "empty": [],
    },
    samples=[Sample("3 March 2021", "2021-03-03", {"base": "zz", "tuned": "2021-03-03"})],
    preview=[[{"text": "<|user|>3 March", "loss": False}, {"text": "2021-03-03", "loss": True}]],
    rows=[{"index": index, "prompt": f"row {index}", "score": 1.0} for index in range(250)],
    command="llsflow run quickstart",
    links={"MLflow run": "http://127.0.0.1:5000/#/x", "bad": "javascript:alert(1)"},
    provenance={"git": {"commit": "abc"}, "libraries": {"torch": "2.13.0"}},
)


class Page(HTMLParser):
    """What a page holds, and whether its tags are balanced."""

    VOID = ("meta", "br", "img", "link", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def test_files_that_are_written(tmp_path: Path) -> None:
    paths = build_report(tmp_path, MATERIAL)
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert names == {"report.html", "report.md", "plots/scores.png", "plots/loss.png", "plots/lr.png"}
    assert all(path.stat().st_size > 500 for path in paths)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md", "plots"}
    for path in paths:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_page_stands_alone_and_shows_everything(tmp_path: Path) -> None:
    build_report(tmp_path, MATERIAL)
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    words = " ".join(page.words)
    for shown in (
        *("quickstart", "Exact match rises", "recipe.lr", "0.001", "0.970 [0.936, 0.986]", "+0.970 [0.950, 0.990]"),
        *("2021-03-03", "llsflow run quickstart", "MLflow run", "libraries.torch", "The first 200 of 250 rows."),
        *("row 199", "Loss", "Learning rate", "train/loss", "val/loss", "javascript:alert(1)"),
    ):
        assert shown in words, shown
    assert "row 200" not in words
    assert page.tags.count("svg") == 3
    assert "<mark>2021-03-03</mark>" in text
    assert "<pre>&lt;|user|&gt;3 March<mark>" in text
    # nothing is fetched, and nothing runs
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    links = [value for name, value in page.attributes if name == "href" and not (value or "").startswith("#")]
    assert links == ["http://127.0.0.1:5000/#/x"]
    assert "prefers-color-scheme: dark" in text


def test_plots_take_the_colour_of_the_page(tmp_path: Path) -> None:
    build_report(tmp_path, MATERIAL)
    text = (tmp_path / "report.html").read_text("utf-8")
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 3
    for svg in svgs:
        assert "currentColor" in svg
        assert "#ffffff" not in svg
        assert "#000000" not in svg
    ids = [set(re.findall(r'<clipPath id="([^"]+)"', svg)) for svg in svgs]
    assert all(ids)
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]


def test_the_same_material_gives_the_same_bytes(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in build_report(tmp_path / "a", MATERIAL)}
    second = {path.name: path.read_bytes() for path in build_report(tmp_path / "b", MATERIAL)}
    assert first == second


@pytest.mark.parametrize(
    "field",
    ["title", "description", "verdict", "command", "facts", "samples", "rows", "preview", "links", "scores", "curves"],
)
def test_hostile_text_stays_text(tmp_path: Path, field: str) -> None:
    values = {
        "facts": {HOSTILE: HOSTILE},
        "samples": [Sample(HOSTILE, HOSTILE, {HOSTILE: HOSTILE, "tuned": HOSTILE})],
        "rows": [{HOSTILE: HOSTILE}],
        "preview": [[{"text": HOSTILE, "loss": True}]],
        "links": {HOSTILE: f"http://x/{HOSTILE}"},
        "curves": {f"{HOSTILE}/{HOSTILE} $^$": [(1, 1.0)]},
        "scores": [Score(HOSTILE, f"{HOSTILE} $x$ $\\frac 日", 0.5)],
    }
    build_report(tmp_path, ReportMaterial(**{"title": "t", field: values.get(field, HOSTILE)}))  # type: ignore[arg-type]
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "script" not in Page(text).tags
    assert "\x00" not in text
    markdown = (tmp_path / "report.md").read_text("utf-8")
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert "<script>" not in outside


def test_empty_material_is_a_page_with_its_title(tmp_path: Path) -> None:
    paths = build_report(tmp_path, ReportMaterial("nothing"))
    assert [path.name for path in paths] == ["report.html", "report.md"]
    assert Page(paths[0].read_text("utf-8")).tags.count("section") == 0
    assert paths[1].read_text("utf-8") == "# nothing\n"


def test_scores_that_are_not_numbers(tmp_path: Path) -> None:
    scores = [Score("a", "m", math.nan), Score("b", "m", None), Score("b", "n", -3.0, (-4.0, -2.0))]
    build_report(tmp_path, ReportMaterial("t", scores=scores))
    assert "-3.000 [-4.000, -2.000]" in (tmp_path / "report.html").read_text("utf-8")


def test_a_row_that_expects_no_certain_answer_has_a_dash(tmp_path: Path) -> None:
    build_report(
        tmp_path, ReportMaterial("t", samples=[Sample("asked", None, {"base": "base says", "tuned": "tuned says"})])
    )
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert "| asked | – | base says | tuned says |" in re.sub(r" +", " ", markdown)
    assert "None" not in (tmp_path / "report.html").read_text("utf-8")


def test_markdown_tables_keep_their_columns(tmp_path: Path) -> None:
    build_report(tmp_path, ReportMaterial("t", samples=[Sample("a|b\nc", "|", {"tuned": "\\|"})]))
    lines = [line for line in (tmp_path / "report.md").read_text("utf-8").splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {4}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (0.97, "0.970"), (12.3456, "12.346"), (1e-5, "1e-05"), (123456.0, "1.235e+05"), (None, "–")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_gains_have_a_sign() -> None:
    assert with_interval(0.5, (0.4, 0.6), sign=True) == "+0.500 [0.400, 0.600]"
    assert with_interval(-0.5, None, sign=True) == "-0.500"


def test_import_is_light() -> None:
    code = "import sys, llsflow.report; print({'matplotlib', 'numpy', 'mlflow'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "set()"
