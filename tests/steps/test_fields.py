"""Every field of a candidate and of a BenchmarkConfig shows its effect on a model in this process.

The same table against an endpoint, with what was sent, is in test_answers.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import load_experiment
from llsflow.errors import ConfigError
from llsflow.schema.plan import StepResult
from llsflow.schema.scoring import ScoringResult
from llsflow.steps import results
from llsflow.steps.evaluate import noise
from tests.models.small import make
from tests.steps.test_answers import benchmark
from tests.steps.test_evaluate import Counting, evaluate

CANDIDATE = "benchmark.benchmark_config.eval_candidate"
PARAMS = f"{CANDIDATE}.sampling_params"
ROWS = 3
STOP = "\ufffd"
"""What bytes that are no UTF-8 become, which a random model writes many of."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("given")
    local = make(max_position_embeddings=256)
    local.model.save_pretrained(str(folder / "model"))
    local.tokenizer.save_pretrained(str(folder / "model"))
    rows = [{"question": "abc"[number] * 4, "answer": "A"} for number in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        f"model.path={folder / 'model'}",
        f"+datasets.own={{dataset_id: own, purpose: eval/question-answer, uri: '{folder / 'rows.jsonl'}'}}",
        *("benchmark.dataset_id=own", "trainer=cpu"),
    ]


pytestmark = pytest.mark.usefixtures("one_home")


Made = list[dict[str, Any]]


def made(result: StepResult) -> Made:
    lines = (Path(result.folder) / results.GENERATIONS).read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda one: int(one["index"]))


def texts(generations: Made) -> list[str]:
    return [one["text"] for one in generations]


def same(greedy: Made, changed: Made) -> bool:
    return texts(changed) == texts(greedy)


def other(greedy: Made, changed: Made) -> bool:
    return len(changed) == ROWS and texts(changed) != texts(greedy)


def shortened(greedy: Made, changed: Made) -> bool:
    return [(one["tokens"], one["finish"]) for one in changed] == [(2, "length")] * ROWS


def cut_at_the_stop(greedy: Made, changed: Made) -> bool:
    assert any(STOP in text for text in texts(greedy)), "a text that stops nothing shows nothing"
    ends = ["stop" if STOP in one["text"] else one["finish"] for one in greedy]
    return [(one["text"], one["finish"]) for one in changed] == [
        (text.partition(STOP)[0], end) for text, end in zip(texts(greedy), ends, strict=True)
    ]


def told_first(_: Made, changed: Made) -> bool:
    return all(one["prompt"].index("Be brief.") < one["prompt"].index("abc"[one["index"]] * 4) for one in changed)


def objects(_: Made, changed: Made) -> bool:
    return all(json.loads(one["text"]) in ({"a": True}, {"a": False}) for one in changed)


def yes_or_no(_: Made, changed: Made) -> bool:
    return all(one["text"] in ("yes", "no") for one in changed)


SCHEMA = "{type: object, properties: {a: {type: boolean}}, required: [a], additionalProperties: false}"
GRAMMAR = '{type: grammar, bnf: {root: \'"yes" | "no"\'}}'


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ([f"{PARAMS}={{max_tokens: 2}}"], shortened),
        ([f"{PARAMS}={{max_tokens: 12, strategy: {{type: greedy}}}}"], same),
        ([f"{PARAMS}={{max_tokens: 12, strategy: {{type: top_p, temperature: 5.0, top_p: 1.0}}}}"], other),
        ([f"{PARAMS}={{max_tokens: 12, strategy: {{type: top_p, temperature: 0.001, top_p: 1.0}}}}"], same),
        ([f"{PARAMS}={{max_tokens: 12, strategy: {{type: top_p, temperature: 5.0, top_p: 0.000001}}}}"], same),
        ([f"{PARAMS}={{max_tokens: 12, strategy: {{type: top_k, top_k: 100}}}}"], other),
        ([f"{PARAMS}={{max_tokens: 12, strategy: {{type: top_k, top_k: 1}}}}"], same),
        ([f"{PARAMS}={{max_tokens: 12, repetition_penalty: 2.0}}"], other),
        ([f"{PARAMS}={{max_tokens: 12, stop: ['{STOP}']}}"], cut_at_the_stop),
        ([f"+{CANDIDATE}.system_message={{content: Be brief.}}"], told_first),
        ([f"+benchmark.response_format={{type: json_schema, json_schema: {SCHEMA}}}"], objects),
        ([f"+benchmark.response_format={GRAMMAR}"], yes_or_no),
        (["benchmark.benchmark_config.num_examples=2"], lambda _, changed: len(changed) == 2),
    ],
)
def test_every_field_of_the_candidate_acts(
    given: list[str], changes: list[str], holds: Callable[[Made, Made], bool]
) -> None:
    greedy = made(evaluate([*given, f"{PARAMS}={{max_tokens: 12}}"], Counting()))
    room = [] if any("sampling_params" in change for change in changes) else [f"{PARAMS}={{max_tokens: 40}}"]
    assert holds(greedy, made(evaluate([*given, *room, *changes], Counting())))


def test_scoring_params_act(given: list[str], tmp_path: Path) -> None:
    basic, choice = "basic::equality", "basic::regex_parser_multiple_choice_answer"
    params = {
        basic: {"type": "basic", "aggregation_functions": ["median", "categorical_count"]},
        choice: {"type": "regex_parser", "parsing_regexes": ["(?s)^()"], "aggregation_functions": ["average"]},
    }
    result = evaluate([*given, benchmark(tmp_path, params)], Counting())
    assert set(result.summary["scores"][basic]) == {"median", "categorical_count"}
    assert set(result.summary["scores"][choice]) == {"average"}
    scored = json.loads((Path(result.folder) / "response.json").read_text())["scores"][choice]["score_rows"]
    assert [row["parsed_answer"] for row in scored] == [""] * ROWS, "the regex of the request is the one that reads"


JUDGED: dict[str, Any] = {
    "type": "llm_as_judge",
    "judge_model": "judge",
    "prompt_template": "Grade {generated_answer}",
    "judge_score_regexes": ["(?s)^(.)"],
}


def lengths(rows: list[dict[str, Any]]) -> set[int]:
    return {len(row["score"]) for row in rows}


@pytest.mark.parametrize(
    ("change", "shows"),
    [
        ({"judge_model": "other"}, lambda before, after: feedback(before) != feedback(after)),
        ({"prompt_template": "{generated_answer}?"}, lambda before, after: feedback(before) != feedback(after)),
        ({"judge_score_regexes": ["(?s)^(..)"]}, lambda before, after: (lengths(before), lengths(after)) == ({1}, {2})),
        ({"judge_score_regexes": ["^nothing here: (.)", "(?s)^(..)"]}, lambda _, after: lengths(after) == {2}),
        ({"aggregation_functions": ["categorical_count", "accuracy"]}, lambda before, after: before == after),
    ],
)
def test_every_field_of_a_judge_in_this_process_acts(
    given: list[str], tmp_path: Path, change: dict[str, Any], shows: Callable[[Any, Any], bool]
) -> None:
    base, judges = "llm-as-judge::base", []
    for seed, name in enumerate(("judge", "other"), start=1):
        local = make(max_position_embeddings=256, seed=seed)
        local.model.save_pretrained(str(tmp_path / name))
        local.tokenizer.save_pretrained(str(tmp_path / name))
        judges.append(f"+models.{name}={{model_id: {name}, path: '{tmp_path / name}'}}")
    found = []
    for number, params in enumerate((JUDGED, {**JUDGED, **change})):
        word = benchmark(tmp_path / str(number), {base: params})
        words = [*given, *judges, word, f"{PARAMS}.max_tokens=4"]
        found.append(evaluate(words, Counting(), tmp_path / str(number) / "conf"))
    aggregations = set(params.get("aggregation_functions", ["categorical_count"]))
    assert set(found[1].summary["scores"][base]) == aggregations
    before, after = (
        json.loads((Path(one.folder) / "response.json").read_text())["scores"][base]["score_rows"] for one in found
    )
    assert shows(before, after)


def feedback(rows: list[dict[str, Any]]) -> list[str]:
    return [row["judge_feedback"] for row in rows]


def test_repeats_answer_every_row_from_other_seeds_and_tell_the_spread(given: list[str]) -> None:
    sampled = f"{PARAMS}={{max_tokens: 12, strategy: {{type: top_p, temperature: 5.0, top_p: 1.0}}}}"
    once, thrice = (evaluate([*given, sampled, f"benchmark.repeats={times}"], Counting()) for times in (1, 3))
    answers = texts(made(thrice))
    assert answers[:ROWS] == texts(made(once)), "the first time is what one time would be"
    assert len({*answers}) == len(answers) == 3 * ROWS
    assert thrice.summary["scores"] == once.summary["scores"]
    assert thrice.summary["noise"] == {
        "basic::equality": {"values": [0.0, 0.0, 0.0], "mean": 0.0, "standard_deviation": 0.0}
    }
    kept = json.loads((Path(thrice.folder) / "repeats.json").read_text())
    assert kept == [{"basic::equality": [0.0] * ROWS}] * 3
    with pytest.raises(ConfigError, match="the answers would be the same each time"):
        load_experiment("eval", [*given, "benchmark.repeats=2"])


def test_noise_by_worked_arithmetic() -> None:
    def result(value: float | None) -> ScoringResult:
        return ScoringResult(score_rows=[], aggregated_results={"accuracy": {"accuracy": value}})

    spread = noise([result(0.5), result(0.75), result(None), result(0.25)])
    assert spread == {"values": [0.5, 0.75, 0.25], "mean": 0.5, "standard_deviation": pytest.approx(0.25)}
    assert noise([result(None)]) == {"values": [], "mean": None, "standard_deviation": None}
