"""The benchmarks of conf that the API can run: those that leave nothing open but the candidate."""

from __future__ import annotations

from pathlib import Path

import pytest

from llsflow.config.benchmarks import conf_benchmark, conf_benchmarks

SHIPPED = ["arithmetic", "help_questions", "iso_dates"]
COMPLETE = "benchmark_id: sums\ndataset_id: sums\nscoring_functions: [basic::equality]\nmetadata: {by: us}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A conf folder with a benchmark of the user's."""
    found = tmp_path / "own" / "benchmark"
    found.mkdir(parents=True)
    (found / "addition.yaml").write_text(COMPLETE)
    return tmp_path / "own"


def test_a_template_is_no_benchmark() -> None:
    assert [benchmark.identifier for benchmark in conf_benchmarks()] == SHIPPED
    assert conf_benchmark("held_out") is None


def test_one_is_found_by_its_name_and_by_its_files(folder: Path) -> None:
    by_id, by_file = conf_benchmark("sums", folder), conf_benchmark("addition", folder)
    assert by_id == by_file
    assert by_id is not None
    assert (by_id.identifier, by_id.provider_id, by_id.dataset_id, by_id.scoring_functions, by_id.metadata) == (
        "sums",
        "conf",
        "sums",
        ["basic::equality"],
        {"by": "us"},
    )
    assert {"sums", *SHIPPED} == {benchmark.identifier for benchmark in conf_benchmarks(folder)}


@pytest.mark.parametrize(
    "text",
    [
        "benchmark_id: [",
        "just a text",
        "",
        COMPLETE.replace("dataset_id: sums", "dataset_id: ???"),
        COMPLETE.replace("dataset_id: sums", "dataset_id: ${dataset.dataset_id}"),
        COMPLETE.replace("dataset_id: sums\n", ""),
        COMPLETE.replace("[basic::equality]", "basic::equality"),
        COMPLETE.replace("basic::equality", "${scorer}"),
        COMPLETE.replace("us", "${user}"),
    ],
)
def test_what_is_open_or_broken_is_left_out(folder: Path, text: str) -> None:
    (folder / "benchmark" / "addition.yaml").write_text(text)
    assert [benchmark.identifier for benchmark in conf_benchmarks(folder)] == SHIPPED


@pytest.mark.parametrize("name", ["../model/tiny_llama", "/etc/passwd", "a/../../x", ""])
def test_a_name_leads_nowhere_else(folder: Path, name: str) -> None:
    assert conf_benchmark(name, folder) is None
