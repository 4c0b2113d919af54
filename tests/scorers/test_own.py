"""A user's own scoring function: a small package with an entry point, found, guarded and told when it is broken."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from llsflow.errors import ConfigError, DataError
from llsflow.evals import check_scorers, evaluate
from llsflow.schema.scoring import AggregationFunctionType, BasicScoringFnParams, LLMAsJudgeScoringFnParams
from llsflow.scorers import SCORERS, check_params, find_scorer, known_ids, outside_code, score_rows
from tests.house.tree import ROOT

Install = Callable[[str, str], Path]

DOCUMENTED = (ROOT / "docs" / "scorers.md").read_text("utf-8")
SHOWN = {name: body for name, body in re.findall(r"`(\w+\.\w+)`:\n\n```\w+\n(.*?)```", DOCUMENTED, re.DOTALL)}
"""The files of the package that docs/scorers.md shows."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package as pip would: modules, and a dist-info folder with its entry points."""
    before = set(sys.modules)

    def put(name: str, source: str, points: str = "") -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[llsflow.scorers]\n{points}\n")
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        return site / f"{name}.py"

    yield put  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


SOURCE = """
from llsflow.scorers import Scorer
from llsflow.schema.scoring import AggregationFunctionType

class Brevity(Scorer):
    '''1.0 up to max_words words.'''
    id = "own::brevity"
    columns = ("max_words",)
    aggregations = (AggregationFunctionType.AVERAGE,)

    def prepare(self, params=None):
        def score(row):
            if row["max_words"] == 0:
                raise ZeroDivisionError("no words at all")
            if row["max_words"] == 1:
                return 1.0
            if row["max_words"] == 2:
                return {"score": 1.0, "seen": {1, 2}}
            return {"score": float(len(row["generated_answer"].split()) <= row["max_words"])}
        return score
"""
POINT = "own::brevity = own_one:Brevity"


def test_it_scores_as_a_built_in_one_does(install: Install) -> None:
    assert known_ids() == list(SCORERS)
    (message,) = check_params("own::brevity")
    assert "is no scoring function" in message
    install("own_one", SOURCE, POINT)
    assert known_ids() == [*SCORERS, "own::brevity"]
    assert check_params("own::brevity") == []
    assert "it calls no judge" in check_params("own::brevity", LLMAsJudgeScoringFnParams(judge_model="m"))[0]
    rows = [{"question": "q", "max_words": n} for n in (3, 4)]
    response = evaluate(rows, lambda asked: ["a b c", "a b c d e"], ["own::brevity"])
    result = response.scores["own::brevity"]
    assert [row["score"] for row in result.score_rows] == [1.0, 0.0]
    assert result.aggregated_results["average"]["average"] == 0.5
    params = BasicScoringFnParams(aggregation_functions=[AggregationFunctionType.MEDIAN])
    given = [{"max_words": 3, "generated_answer": "a"}]
    assert list(score_rows(given, "own::brevity", params).aggregated_results) == ["median"]
    assert list(score_rows(given, "own::brevity").aggregated_results) == ["average"]
    with pytest.raises(DataError, match="own::brevity needs max_words"):
        evaluate([{"question": "q", "answer": "a"}], lambda asked: ["x"], ["own::brevity"])


def test_a_row_that_it_fails_on_sinks_no_other(install: Install) -> None:
    install("own_one", SOURCE, POINT)
    rows = [{"max_words": n, "generated_answer": "a"} for n in (0, 1, 2, 3)]
    result = score_rows(rows, "own::brevity")
    assert [row["score"] for row in result.score_rows] == [None, None, None, 1.0]
    reasons = [row.get("unscored", "") for row in result.score_rows]
    assert "ZeroDivisionError: no words at all" in reasons[0]
    assert "returned '1.0': a dict with `score` is needed" in reasons[1]
    assert "set is not JSON serializable" in reasons[2]
    assert result.aggregated_results["average"]["num_unscored"] == 3


@pytest.mark.parametrize(
    ("point", "source", "told"),
    [
        ("own_one:Missing", SOURCE, "own_one 1.2 (entry point own_one:Missing) cannot be loaded: AttributeError"),
        ("own_none:Brevity", SOURCE, "cannot be loaded: ModuleNotFoundError: No module named 'own_none'"),
        ("own_one:Brevity", "import own_not_there", "cannot be loaded: ModuleNotFoundError"),
        ("own_one:Brevity", "def", "cannot be loaded: SyntaxError"),
        ("own_one:len", "len = len", "is no class below llsflow.scorers.Scorer: see docs/scorers.md"),
        ("own_one:Brevity", SOURCE.replace('"own::brevity"', '"other"'), "has the id 'other': its id must be"),
        ("own_one:Brevity", SOURCE.replace("def prepare", "def prepared"), "has no prepare()"),
        (
            "own_one:Brevity",
            SOURCE.replace('("max_words",)', '("max_words")'),
            "columns 'max_words': a tuple is needed",
        ),
        ("own_one:Brevity", SOURCE + "\n    def __init__(self): raise OSError('x')\n", "cannot be made: OSError: x"),
    ],
)
def test_a_broken_one_is_a_mistake_with_its_reason(install: Install, point: str, source: str, told: str) -> None:
    install("own_one", source, f"own::brevity = {point}")
    assert told in "\n".join(message for _, message in check_scorers(["own::brevity"], {}))
    with pytest.raises(ConfigError) as refused:
        score_rows([], "own::brevity")
    assert told in str(refused.value)
    assert score_rows([], "basic::equality").score_rows == [], "the others go on"


def test_one_that_cannot_be_prepared_or_checked_is_a_mistake(install: Install) -> None:
    install("own_one", SOURCE.replace("def score(row):", "raise OSError('no model')\n        def score(row):"), POINT)
    with pytest.raises(ConfigError, match="cannot be prepared: OSError: no model"):
        score_rows([], "own::brevity")
    install("own_two", SOURCE.replace("brevity", "two") + "\n    def check(self, params): return 1 / 0\n", TWO)
    assert "cannot check its parameters (ZeroDivisionError" in check_params("own::two")[0]


TWO = "own::two = own_two:Brevity"


def test_it_takes_no_built_in_ones_place(install: Install) -> None:
    install("own_one", SOURCE.replace("own::brevity", "basic::equality"), "basic::equality = own_one:Brevity")
    assert find_scorer("basic::equality") is SCORERS["basic::equality"]
    assert "own_one" not in sys.modules, "it was loaded though nothing asked for it"


def test_two_packages_with_one_id_are_a_mistake(install: Install) -> None:
    install("own_one", SOURCE, POINT)
    install("own_two", SOURCE, "own::brevity = own_two:Brevity")
    (message,) = check_params("own::brevity")
    assert message == "'own::brevity' is offered by own_one 1.2, own_two 1.2: uninstall all but one"


def test_an_unknown_id_names_the_users_own_ones_too(install: Install) -> None:
    install("own_one", SOURCE, POINT)
    (message,) = check_params("own::brevety")
    assert "did you mean 'own::brevity'?" in message
    assert "own_one" not in sys.modules


def test_its_code_is_part_of_what_an_evaluation_depends_on(install: Install) -> None:
    file = install("own_one", SOURCE, POINT)
    before = outside_code(["basic::equality", "own::brevity"])
    assert list(before) == ["own::brevity"]
    file.write_text(SOURCE + "# changed\n")
    assert outside_code(["own::brevity"]) != before
    assert outside_code(["basic::regex_parser_math_response"]) == {
        "basic::regex_parser_math_response": f"math-verify {version('math-verify')}"
    }


def test_the_documented_one_works_as_it_is_shown(install: Install) -> None:
    points = dict(re.findall(r'^"(\S+)" = "(\S+)"$', SHOWN["pyproject.toml"], re.MULTILINE))
    ((scorer_id, value),) = points.items()
    module = value.partition(":")[0]
    install(module, SHOWN[f"{module}.py"], f"{scorer_id} = {value}")
    scorer = find_scorer(scorer_id)
    assert scorer.__doc__
    rows = [{"prompt": "Why?", "max_words": 3}, {"prompt": "Why?", "max_words": "3"}]
    response = evaluate(rows, lambda asked: ["It is so.", "It is so."], [scorer_id])
    assert [row["score"] for row in response.scores[scorer_id].score_rows] == [1.0, None]
    del sys.modules[module]


def table() -> dict[str, list[str]]:
    """Return the documented scoring functions: id -> the cells beside it."""
    rows = re.findall(r"^\| `([\w:-]+)` \|(.*)\|$", DOCUMENTED.partition("## Rows")[0], re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_documented_table_is_of_all_scoring_functions() -> None:
    assert list(table()) == list(SCORERS)
    for name, (reads, params, aggregations, says) in table().items():
        scorer = SCORERS[name]
        assert reads == ", ".join(
            [*(f"`{column}`" for column in scorer.columns), *(f"`{column}`?" for column in scorer.optional_columns)]
        )
        kinds = [str(kind.model_fields["type"].default) for kind in scorer.params_types]
        assert params == ", ".join(f"`{kind}`" for kind in kinds)
        assert aggregations == ", ".join(f"`{function}`" for function in scorer.aggregations)
        assert says
