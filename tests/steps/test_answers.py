"""Evaluations through an endpoint: every field arrives, failing rows are told, and nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from llsflow.config import load_experiment
from llsflow.errors import ConfigError, DataError, UnavailableError
from llsflow.models import endpoint as endpoints
from llsflow.models.ranking import RankingModel
from llsflow.plan import compile_plan
from llsflow.schema.plan import StepState
from llsflow.schema.scoring import AnswerCounts
from llsflow.steps import results
from tests.models.rerankers import cross_encoder, embedding_model
from tests.scripted import Answer, Scripted, scripted
from tests.steps.test_evaluate import Counting, evaluate

CANDIDATE = "benchmark.benchmark_config.eval_candidate"


def overrides(folder: Path, script: Scripted, rows: list[dict[str, Any]], *more: str) -> list[str]:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "model=endpoint",
        f"model.endpoint.base_url={script.url}",
        "model.endpoint.model=theirs",
        f"+datasets.own={{dataset_id: own, purpose: eval/question-answer, uri: '{data}'}}",
        "benchmark.dataset_id=own",
        *more,
    ]


def benchmark(folder: Path, params: dict[str, Any]) -> str:
    """Write ./conf/benchmark/scored.yaml, which scores with these functions, and return the word that chooses it."""
    file = folder / "conf" / "benchmark" / "scored.yaml"
    file.parent.mkdir(parents=True)
    candidate = {"type": "model", "model": "${model.model_id}", "sampling_params": {"max_tokens": 16}}
    config = {"eval_candidate": candidate, "scoring_params": params}
    written = {"benchmark_id": "scored", "dataset_id": "own", "scoring_functions": list(params)}
    file.write_text(yaml.safe_dump({**written, "benchmark_config": config}))
    return "benchmark=scored"


pytestmark = pytest.mark.usefixtures("one_home")


def questions(count: int) -> list[dict[str, Any]]:
    return [{"question": f"q{n}", "answer": f"a{n}"} for n in range(count)]


def echo(body: dict[str, Any], _: int) -> str:
    return str(body["messages"][-1]["content"]).replace("q", "a")


def response(folder: str) -> Any:
    return json.loads((Path(folder) / "response.json").read_text())


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        (f"{CANDIDATE}.sampling_params={{strategy: {{type: greedy}}, max_tokens: 5}}", {"max_tokens": 5}),
        (
            f"{CANDIDATE}.sampling_params={{strategy: {{type: top_p, temperature: 0.5, top_p: 0.8}}}}",
            {"temperature": 0.5, "top_p": 0.8},
        ),
        (f"{CANDIDATE}.sampling_params={{strategy: {{type: top_k, top_k: 7}}}}", {"temperature": 1, "top_k": 7}),
        (f"{CANDIDATE}.sampling_params={{repetition_penalty: 1.2}}", {"repetition_penalty": 1.2}),
        (f"{CANDIDATE}.sampling_params={{stop: [END]}}", {"stop": ["END"]}),
        (
            f"+{CANDIDATE}.system_message={{content: Be brief.}}",
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q0"}]},
        ),
        (
            "+benchmark.response_format={type: json_schema, json_schema: {type: object}}",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ("seed=9", {"seed": 9}),
        ("model.endpoint.model=other", {"model": "other"}),
    ],
)
def test_every_field_of_the_candidate_arrives(tmp_path: Path, change: str, sent: dict[str, Any]) -> None:
    with scripted(echo) as script:
        result = evaluate(overrides(tmp_path, script, questions(1), change), Counting())
    (body,) = script.sent
    assert {name: body[name] for name in sent} == sent
    assert result.summary["scores"]["basic::equality"]["accuracy"]["accuracy"] == 1.0


def test_num_examples_and_scoring_params_act(tmp_path: Path) -> None:
    params = {"basic::equality": {"type": "basic", "aggregation_functions": ["median"]}}
    more = [benchmark(tmp_path, params), "+benchmark.benchmark_config.num_examples=3"]
    with scripted(echo) as script:
        result = evaluate(overrides(tmp_path, script, questions(9), *more), Counting())
    assert len(script.sent) == 3
    assert list(result.summary["scores"]["basic::equality"]) == ["median"]


def test_every_role_of_a_conversation_arrives_in_its_order(tmp_path: Path) -> None:
    turns = [("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3")]
    said = [{"role": role, "content": content} for role, content in turns]
    with scripted(lambda body, _: "yes") as script:
        rows = overrides(tmp_path, script, [{"messages": said, "answer": "yes"}])
        words = [word.replace("eval/question-answer", "eval/messages-answer") for word in rows]
        result = evaluate(words, Counting())
    assert script.sent[0]["messages"] == said
    (line,) = [json.loads(text) for text in (Path(result.folder) / "rows.jsonl").read_text().splitlines()]
    assert json.loads(line["prompt"]) == said


def test_rows_that_fail_are_named_and_are_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT_SECONDS", 0.01)

    def say(body: dict[str, Any], number: int) -> Any:
        match body["messages"][0]["content"]:
            case "q2":
                return Answer("blocked by a filter", 400)
            case "q4":
                return Answer("busy", 503)
        return echo(body, number)

    with scripted(say) as script:
        found = evaluate(overrides(tmp_path, script, questions(6), "model.endpoint.retries=1"), Counting())
    assert (found.summary["failed"], found.summary["failed_rows"]) == (2, [3, 5])
    accuracy = found.summary["scores"]["basic::equality"]["accuracy"]
    assert (accuracy["accuracy"], accuracy["num_total"], accuracy["num_unscored"]) == (1.0, 4, 2)
    told = response(found.folder)
    assert told["generations"][2] == {"generated_answer": None, "error": "blocked by a filter"}
    assert told["scores"]["basic::equality"]["score_rows"][4]["unscored"] == "busy (2 tries)"


def killed(words: list[str], hold_at: int) -> None:
    """Run the evaluation in a process of its own, and kill it once so many rows are done."""
    command = [sys.executable, __file__, str(hold_at), *words]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.mark.parametrize(("rows", "kill_at"), [(60, 40), pytest.param(1000, 700, marks=pytest.mark.slow)])
def test_killed_with_9_it_ends_with_every_row_and_none_is_made_twice(tmp_path: Path, rows: int, kill_at: int) -> None:
    with scripted(echo) as script:
        words = overrides(tmp_path, script, questions(rows), "model.endpoint.at_once=4")
        killed(words, kill_at)
        step = compile_plan(load_experiment("eval", words).experiment).step("evaluate-base")
        assert (step.state, step.reason) == (
            StepState.RESUME,
            "takes the answers that are there",
        )
        file = results.generations_folder(step) / results.GENERATIONS
        kept = [json.loads(line)["index"] for line in file.read_bytes().splitlines()]
        assert len(kept) == kill_at
        before = len(script.sent)
        watcher = Counting()
        result = evaluate(words, watcher)
    again = [int(body["messages"][0]["content"].removeprefix("q")) for body in script.sent[before:]]
    assert set(again) == set(range(rows)) - set(kept), "what was kept was asked again, or something was left out"
    assert max(Counter(again).values()) == 1
    assert watcher.seen[0] == kill_at
    lines = (Path(result.folder) / results.GENERATIONS).read_bytes().splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(range(rows))
    assert result.summary["scores"]["basic::equality"]["accuracy"]["num_correct"] == rows


def test_an_endpoint_that_goes_away_can_be_come_back_to(tmp_path: Path) -> None:
    with scripted(lambda body, number: echo(body, number) if number < 20 else Answer("down", 503)) as script:
        words = overrides(tmp_path, script, questions(60), "model.endpoint.retries=0", "model.endpoint.at_once=1")
        with pytest.raises(UnavailableError, match="does not answer: down; 20 rows are kept"):
            evaluate(words, Counting())
        script.say = echo
        before = len(script.sent)
        result = evaluate(words, Counting())
        assert len(script.sent) - before == 40
    assert result.summary["scores"]["basic::equality"]["accuracy"]["num_correct"] == 60


def test_the_key_is_in_no_file(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-very-secret")
    with scripted(echo) as script:
        evaluate(overrides(tmp_path, script, questions(2), "model.endpoint.api_key_env=THEIR_KEY"), Counting())
    assert script.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in caplog.text
    held = [path for path in home.rglob("*") if path.is_file() and b"sk-very-secret" in path.read_bytes()]
    assert held == []


def test_nothing_is_trained_at_an_endpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is trained at an endpoint"):
        load_experiment("quickstart", ["model=endpoint", "model.endpoint.base_url=http://127.0.0.1:1/v1"])


BASE = {
    "type": "llm_as_judge",
    "judge_model": "judge",
    "prompt_template": "Of 9: {input_query} {expected_answer} {generated_answer}",
    "judge_score_regexes": [r"none (\d)", r"Score: (\d)"],
    "aggregation_functions": ["average"],
}
JUDGED: dict[str, Any] = {
    "llm-as-judge::base": BASE,
    "llm-as-judge::405b-simpleqa": {"type": "llm_as_judge", "judge_model": "judge"},
}


def judge(script: Scripted) -> str:
    return f"+models.judge={{model_id: judge, endpoint: {{base_url: '{script.url}', model: wise}}}}"


def test_judges_are_asked_and_their_replies_kept(tmp_path: Path) -> None:
    graded: Counter[str] = Counter()

    def say(body: dict[str, Any], number: int) -> Any:
        prompt = body["messages"][0]["content"]
        if body["model"] != "wise":
            return echo(body, number)
        graded[prompt] += 1
        if prompt.startswith("Of 9: q1 "):
            return "I would rather not" if graded[prompt] < 3 else "Score: 4"
        if prompt.startswith("Of 9: q2 "):
            return "no idea"
        return "Score: 7" if prompt.startswith("Of 9") else "A"

    with scripted(say) as script:
        words = overrides(tmp_path, script, questions(4), benchmark(tmp_path, JUDGED), judge(script))
        result = evaluate(words, Counting())
    base, simple = (response(result.folder)["scores"][f"llm-as-judge::{name}"] for name in ("base", "405b-simpleqa"))
    assert [row["score"] for row in base["score_rows"]] == ["7", "4", None, "7"]
    assert base["score_rows"][2] == {
        "score": None,
        "judge_feedback": "no idea",
        "unscored": "no regex finds a score in the judge's reply",
    }
    assert base["aggregated_results"]["average"]["average"] == 6.0
    assert base["aggregated_results"]["average"]["num_unscored"] == 1
    assert simple["aggregated_results"]["categorical_count"]["categorical_count"] == {"A": 4}
    assert graded["Of 9: q1 a1 a1"] == graded["Of 9: q2 a2 a2"] == 3
    assert graded["Of 9: q0 a0 a0"] == 1
    drawn = [body for body in script.sent if body["messages"][0]["content"] == "Of 9: q1 a1 a1"]
    assert [body["temperature"] for body in drawn] == [0, 0.7, 0.7]


def test_autoevals_asks_the_judge_of_the_benchmark(tmp_path: Path) -> None:
    """In rounds of all rows, over HTTP, and of nobody else."""
    held = {"statement": "a", "verdict": 1, "reason": "there"}

    def say(body: dict[str, Any], number: int) -> Any:
        prompt = body["messages"][0]["content"]
        if body["model"] != "wise":
            return echo(body, number)
        if "Call `extract_statements`" in prompt:
            return '```["a", "b"]```'
        return json.dumps({"faithfulness": [held, {**held, "verdict": 0}]})

    params = {"braintrust::faithfulness": {"type": "llm_as_judge", "judge_model": "judge"}}
    rows = [{**row, "context": ["one", "two"]} for row in questions(5)]
    with scripted(say) as script:
        result = evaluate(overrides(tmp_path, script, rows, benchmark(tmp_path, params), judge(script)), Counting())
    scores = response(result.folder)["scores"]["braintrust::faithfulness"]
    assert [row["score"] for row in scores["score_rows"]] == [0.5] * 5
    assert scores["aggregated_results"]["average"]["average"] == 0.5
    asked = [body["messages"][0]["content"] for body in script.sent if body["model"] == "wise"]
    assert ["Call `extract_statements`" in prompt for prompt in asked] == [True] * 5 + [False] * 5
    assert all("context: one\ntwo\n" in prompt for prompt in asked[5:])


def test_a_judge_that_goes_away_is_not_asked_again_what_it_said(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    state = {"down": True}

    def say(body: dict[str, Any], number: int) -> Any:
        prompt = body["messages"][0]["content"]
        if body["model"] != "wise":
            return echo(body, number)
        if state["down"] and len(asked) >= 15:
            return Answer("down", 503)
        asked[prompt] += 1
        return "Score: 3" if prompt.startswith("Of 9") else "C"

    with scripted(say) as script:
        one = f"{judge(script)[:-2]}, retries: 0, at_once: 1}}}}"
        words = overrides(tmp_path, script, questions(30), benchmark(tmp_path, JUDGED), one)
        with pytest.raises(UnavailableError, match="does not answer: down"):
            evaluate(words, Counting())
        state["down"] = False
        result = evaluate(words, Counting())
    assert set(asked.values()) == {1}
    assert len(asked) == 60
    assert len(response(result.folder)["scores"]["llm-as-judge::base"]["score_rows"]) == 30
    assert len([body for body in script.sent if body["model"] == "theirs"]) == 30


def test_rows_that_a_judge_did_not_answer_are_judged_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT_SECONDS", 0.01)
    well, asked = False, Counter[str]()

    def say(body: dict[str, Any], number: int) -> Any:
        prompt = body["messages"][0]["content"]
        if body["model"] != "wise":
            return echo(body, number)
        if not well and "q1" in prompt:
            return Answer("busy", 503)
        asked[prompt] += 1
        return "Score: 3" if prompt.startswith("Of 9") else "C"

    with scripted(say) as script:
        one = f"{judge(script)[:-2]}, retries: 0}}}}"
        words = overrides(tmp_path, script, questions(3), benchmark(tmp_path, JUDGED), one)
        first = evaluate(words, Counting())
        assert first.open
        assert (first.summary["unanswered"], first.summary["not_judged"]) == (1, 1)
        step = compile_plan(load_experiment("eval", words).experiment).steps[0]
        assert (step.state, step.reason) == (StepState.RESUME, "asks the 1 rows again that were not answered")
        well = True
        again = evaluate(words, Counting())
        assert len([body for body in script.sent if body["model"] == "theirs"]) == 3
    assert not again.open
    assert "not_judged" not in again.summary
    assert (len(asked), set(asked.values())) == (6, {1})
    assert all(row["score"] is not None for row in response(again.folder)["scores"]["llm-as-judge::base"]["score_rows"])


def test_a_judge_in_this_process(tmp_path: Path, tiny_folder: Path) -> None:
    """A random model says nothing of worth: what counts is that it is asked, once the candidate was let go."""
    with scripted(echo) as script:
        own = f"+models.judge={{model_id: judge, path: '{tiny_folder}'}}"
        words = overrides(tmp_path, script, questions(2), benchmark(tmp_path, JUDGED), own, "trainer=cpu")
        result = evaluate(words, Counting())
    for name in ("base", "405b-simpleqa"):
        rows = response(result.folder)["scores"][f"llm-as-judge::{name}"]["score_rows"]
        assert all("judge_feedback" in row for row in rows)
    assert "context" in rows[0]["unscored"], "the prompt of 405b-simpleqa is longer than this model's context"


def vectors(body: dict[str, Any], _: int) -> Any:
    """Answer as `echo`; of texts in `input` the vectors: [1, 0] of those that end in 0, else [0, 1]."""
    if "input" not in body:
        return echo(body, _)
    made = [[1.0, 0.0] if text.endswith("0") else [0.0, 1.0] for text in body["input"]]
    return Answer(body={"data": [{"index": place, "embedding": vector} for place, vector in enumerate(made)]})


def test_vectors_of_an_endpoint_and_of_a_model_in_this_process(tmp_path: Path) -> None:
    name = "braintrust::answer-similarity"
    params = {"type": "llm_as_judge", "judge_model": "judge", "embedding_model": "there"}
    folder = embedding_model(tmp_path / "here")
    with scripted(vectors) as script:
        there = (
            f"+models.there={{model_id: there, model_type: rerank, endpoint: {{base_url: '{script.url}', model: v}}}}"
        )
        here = f"+models.here={{model_id: here, model_type: rerank, path: '{folder}'}}"
        rows = [{"question": "q0", "answer": "b0"}, {"question": "q1", "answer": "b0"}]
        words = overrides(tmp_path, script, rows, benchmark(tmp_path, {name: params}), judge(script), there, here)
        scores = response(evaluate(words, Counting()).folder)["scores"][name]["score_rows"]
        assert [row["score"] for row in scores] == [1.0, 0.0]
        sent = [body for body in script.sent if "input" in body]
        assert {(body["model"], *body["input"]) for body in sent} == {("v", "a0"), ("v", "a1"), ("v", "b0")}
        benchmark(tmp_path / "again", {name: {**params, "embedding_model": "here"}})
        result = evaluate(words, Counting(), tmp_path / "again" / "conf")
    scores = response(result.folder)["scores"][name]["score_rows"]
    model = RankingModel.load(folder, device="cpu")
    for row, (made, wanted) in zip(scores, (("a0", "b0"), ("a1", "b0")), strict=True):
        one, other = (torch.tensor(vector) for vector in model.vectors([made, wanted]))
        likeness = float(torch.nn.functional.cosine_similarity(one, other, dim=0))
        assert row["score"] == pytest.approx(max((likeness - 0.7) / 0.3, 0), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("path: '{text}'", "writes text and makes no vectors: embedding_model has model_type rerank"),
        ("builtin: bm25, model_type: rerank", "'vectors' makes no vectors: take an embedding model"),
        ("path: '{cross}', model_type: rerank", "'vectors' makes no vectors: take an embedding model"),
    ],
)
def test_what_makes_no_vectors_is_refused_before_anything_is_asked(
    tmp_path: Path, tiny_folder: Path, kind: str, sentence: str
) -> None:
    params = {"type": "llm_as_judge", "judge_model": "judge", "embedding_model": "vectors"}
    own = kind.format(text=tiny_folder, cross=cross_encoder(tmp_path / "cross"))
    chosen = benchmark(tmp_path, {"braintrust::answer-similarity": params})
    with scripted(echo) as script:
        words = overrides(tmp_path, script, questions(1), chosen, judge(script))
        with pytest.raises((ConfigError, DataError), match=sentence):
            evaluate([*words, f"+models.vectors={{model_id: vectors, {own}}}"], Counting())
    assert not script.sent


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"judge_model": "jduge"}, "jduge"),
        ({"prompt_template": "x {answer} {generated_answer}"}, r"has \{answer\}: allowed are"),
        ({"prompt_template": "x {generated_answer"}, "double the braces"),
        ({"prompt_template": "x"}, r"no \{generated_answer\}"),
        ({"prompt_template": "{generated_answer!r}"}, "write its name alone"),
        ({"prompt_template": None}, "no prompt of its own"),
        ({"judge_score_regexes": []}, "cannot tell a score"),
        ({"judge_score_regexes": ["("]}, "is not a regex"),
        (
            dict.fromkeys(("judge_model", "prompt_template", "judge_score_regexes")) | {"type": "basic"},
            "needs parameters of type 'llm_as_judge'",
        ),
    ],
)
def test_a_judge_that_cannot_work_is_refused_before_anything_is_asked(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    params = {"llm-as-judge::base": {name: value for name, value in {**BASE, **change}.items() if value is not None}}
    with scripted(echo) as script:
        words = overrides(tmp_path, script, questions(1), benchmark(tmp_path, params), judge(script))
        with pytest.raises((ConfigError, DataError), match=sentence):
            compile_plan(load_experiment("eval", words).experiment)
    assert script.sent == []


if __name__ == "__main__":
    evaluate(sys.argv[2:], Counting(hold_at=int(sys.argv[1])))


def test_rows_that_were_not_answered_are_asked_again_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT_SECONDS", 0.01)
    well = False

    def say(body: dict[str, Any], number: int) -> Any:
        return echo(body, number) if well or "q1" in str(body["messages"]) else Answer("busy", 503)

    with scripted(say) as script:
        words = overrides(tmp_path, script, questions(2), "model.endpoint.retries=2")
        first = evaluate(words, Counting())
        assert first.open
        assert (first.summary["unanswered"], first.summary["counts"]["unanswered"]) == (1, 1)
        assert AnswerCounts.model_validate(first.summary["counts"]).words == "1 of 2 rows unanswered"
        step = compile_plan(load_experiment("eval", words).experiment).steps[0]
        assert (step.state, step.reason) == (StepState.RESUME, "asks the 1 rows again that were not answered")
        well, before = True, len(script.sent)
        again = evaluate(words, Counting())
        assert len(script.sent) == before + 1
    assert not again.open
    assert "unanswered" not in again.summary
    accuracy = again.summary["scores"]["basic::equality"]["accuracy"]
    assert (accuracy["num_total"], accuracy["num_unscored"]) == (2, 0)


def test_other_scoring_functions_ask_for_no_answer(tmp_path: Path) -> None:
    with scripted(echo) as script:
        words = overrides(tmp_path, script, questions(3))
        evaluate(words, Counting())
        asked = len(script.sent)
        result = evaluate([*words, "benchmark.scoring_functions=[basic::subset_of]"], Counting())
        assert len(script.sent) == asked == 3
        assert list(result.summary["scores"]) == ["basic::subset_of"]
        evaluate([*words, "seed=7"], Counting())
        assert len(script.sent) == 6


def test_answers_that_are_none_are_counted_beside_the_number(tmp_path: Path) -> None:
    def say(body: dict[str, Any], number: int) -> Any:
        match body["messages"][0]["content"]:
            case "q0":
                return Answer("", finish="content_filter")
            case "q1":
                return Answer("half an", finish="length")
            case "q2":
                return Answer("")
        return echo(body, number)

    with scripted(say) as script:
        found = evaluate(overrides(tmp_path, script, questions(4)), Counting())
    assert AnswerCounts.model_validate(found.summary["counts"]).words == "1 of 4 rows filtered, 1 cut off, 1 empty"
    told = response(found.folder)
    assert told["counts"] == {"rows": 4, "unanswered": 0, "filtered": 1, "cut_off": 1, "empty": 1}
    assert told["generations"][0]["error"] == "the server's content filter withheld the answer"
    assert told["generations"][1] == {"generated_answer": "half an", "finish_reason": "length"}
    accuracy = found.summary["scores"]["basic::equality"]["accuracy"]
    assert (accuracy["num_total"], accuracy["num_unscored"]) == (3, 1)
