"""Agents as candidates: the rows are turns, the tools run, what an agent is decides the step's key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llsflow.config import load_experiment
from llsflow.errors import ConfigError, UnavailableError
from llsflow.plan import compile_plan
from llsflow.tracking.client import import_client, tracking_uri
from tests.scripted import Answer, Scripted, scripted
from tests.steps.test_evaluate import Counting, evaluate

AGENT = {
    "model": "${model.model_id}",
    "instructions": "Be exact.",
    "toolgroups": ["calculator"],
    "sampling_params": {"max_tokens": 16},
}
ROWS = [{"question": f"{n} * {n}?", "answer": str(n * n)} for n in range(6)]

pytestmark = pytest.mark.usefixtures("one_home")


def overrides(folder: Path, script: Scripted, rows: list[dict[str, Any]] = ROWS, **agent: Any) -> list[str]:
    """Write ./conf/benchmark/agents.yaml, and return the words that choose it."""
    file = folder / "conf" / "benchmark" / "agents.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    candidate = {"type": "agent", "config": {**AGENT, **agent}}
    written = {"benchmark_id": "agents", "dataset_id": "own", "scoring_functions": ["basic::equality"]}
    file.write_text(yaml.safe_dump({**written, "benchmark_config": {"eval_candidate": candidate}}))
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "model=endpoint",
        f"model.endpoint.base_url={script.url}",
        "model.endpoint.retries=0",
        f"+datasets.own={{dataset_id: own, purpose: eval/question-answer, uri: '{data}'}}",
        "benchmark=agents",
    ]


def calculates(body: dict[str, Any], _: int) -> Any:
    """Call the calculator with what was asked, then say what it answered."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return last["content"]
    return Answer(calls=[("calculator", json.dumps({"expression": last["content"].rstrip("?")}))])


def traces() -> list[Any]:
    """Return the traces that hang on the last run."""
    client = import_client()(tracking_uri(None))
    experiment = client.get_experiment_by_name("llsflow").experiment_id
    run = client.search_runs([experiment], max_results=1)[0]
    return list(client.search_traces(locations=[experiment], run_id=run.info.run_id, include_spans=True))


def test_an_agent_answers_through_its_tools(tmp_path: Path) -> None:
    with scripted(calculates) as script:
        folder = Path(evaluate(overrides(tmp_path, script), Counting()).folder)
    response = json.loads((folder / "response.json").read_text())
    assert [one["generated_answer"] for one in response["generations"]] == [row["answer"] for row in ROWS]
    assert response["scores"]["basic::equality"]["aggregated_results"]["accuracy"]["accuracy"] == 1.0
    kinds = [step["step_type"] for step in response["generations"][2]["steps"]]
    assert kinds == ["inference", "tool_execution", "inference"]
    assert [len(trace.data.spans) for trace in traces()] == [4] * len(ROWS)
    assert script.sent[0]["messages"][0] == {"role": "system", "content": "Be exact."}
    assert script.sent[0]["max_tokens"] == 16
    assert len({body["seed"] for body in script.sent}) == len(ROWS)


def test_earlier_turns_of_a_row_are_earlier_turns(tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "3 * 3?"},
    ]
    with scripted(calculates) as script:
        words = overrides(tmp_path, script, [{"messages": said, "answer": "9"}])
        words[3] = words[3].replace("question-answer", "messages-answer")
        evaluate(words, Counting())
    roles = [message["role"] for message in script.sent[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool"]


def test_a_row_that_cannot_be_answered_does_not_sink_the_others(tmp_path: Path) -> None:
    def say(body: dict[str, Any], number: int) -> Any:
        if body["messages"][-1]["content"] == "2 * 2?":
            return Answer("too hard", status=500)
        return calculates(body, number)

    with scripted(say) as script:
        folder = Path(evaluate(overrides(tmp_path, script), Counting()).folder)
    generations = json.loads((folder / "response.json").read_text())["generations"]
    assert [number for number, one in enumerate(generations) if "error" in one] == [2]
    assert "too hard" in generations[2]["error"]


def test_a_stream_that_was_cut_off_is_asked_again_and_reasoning_is_kept_apart(tmp_path: Path) -> None:
    """Without finish_reason and [DONE] nobody knows what is missing."""
    begun = b'data: {"choices": [{"index": 0, "delta": {"content": "1"}, "finish_reason": null}]}\n\n'
    thought = {"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}
    ended = {"index": 0, "delta": {"content": "16"}, "finish_reason": "stop"}
    whole = b"".join(f"data: {json.dumps({'choices': [one]})}\n\n".encode() for one in (thought, ended))

    def say(_: dict[str, Any], number: int) -> Any:
        return Answer(events=begun if number == 0 else whole + b"data: [DONE]\n\n")

    with scripted(say) as script:
        words = overrides(tmp_path, script, [{"question": "4 * 4?", "answer": "16"}], toolgroups=[])
        words[2] = "model.endpoint.retries=1"
        folder = Path(evaluate(words, Counting()).folder)
    (generation,) = json.loads((folder / "response.json").read_text())["generations"]
    assert len(script.sent) == 2
    assert generation["generated_answer"] == "16"
    assert [step["reasoning_content"] for step in generation["steps"]] == ["hm"]


def test_an_endpoint_that_is_gone_fails_the_step(tmp_path: Path) -> None:
    with scripted(lambda *_: Answer("down", status=500)) as script, pytest.raises(UnavailableError, match="down"):
        evaluate(overrides(tmp_path, script), Counting())


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ({"client_tools": [{"name": "add"}]}, "nobody runs them in an evaluation"),
        ({"enable_session_persistence": True}, "sessions of an evaluation are not kept"),
        ({"model": "other"}, "'other' is not this experiment's model"),
        ({"toolgroups": ["calculater"]}, "no toolgroup 'calculater'; did you mean 'calculator'?"),
        ({"instruction": "x"}, "unknown key; did you mean instructions?|instruction"),
    ],
)
def test_what_an_agent_cannot_do_here_is_refused_with_its_place(
    tmp_path: Path, agent: dict[str, Any], told: str
) -> None:
    with scripted(calculates) as script, pytest.raises(ConfigError, match=told):
        load_experiment("eval", overrides(tmp_path, script, **agent))


def test_the_key_is_of_what_the_agent_is(tmp_path: Path) -> None:
    def key(**agent: Any) -> str:
        experiment = load_experiment("eval", overrides(tmp_path, script, **agent)).experiment
        return next(step.key for step in compile_plan(experiment).steps if step.kind == "evaluate")

    with scripted(calculates) as script:
        first = key()
        assert key() == first
        assert key(instructions="Be brief.") != first
        own = tmp_path / "conf" / "toolgroup" / "calculator.yaml"
        own.parent.mkdir()
        provider = {"type": "python", "entry_points": ["calculator"]}
        own.write_text(yaml.safe_dump({"toolgroup_id": "calculator", "provider": provider, "timeout_seconds": 3}))
        assert key() != first
