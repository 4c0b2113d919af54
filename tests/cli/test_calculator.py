"""The experiment calculator as shipped: a model learns to call a tool, and its agent answers through it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import resolve_conf_uri
from tests.cli.serving import LLSFLOW, Serving, wait_for

LEAST = 0.9
AGENT: dict[str, Any] = {
    "model": "reckoner",
    "instructions": "",
    "toolgroups": ["calculator"],
    "tool_config": {"tool_prompt_format": "json", "system_message_behavior": "replace"},
    "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 96},
    "max_infer_iters": 3,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sums_are_answered_through_the_tool_by_the_command_line_and_the_api(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    done = subprocess.run(
        [*LLSFLOW, "run", "calculator"],
        cwd=tmp_path,
        env=serving.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (compared,) = (serving.home / "steps").glob("compare-*/result.json")
    (row,) = json.loads(compared.read_text())["summary"]["table"]
    assert row["rows"] == 200
    assert row["base"] <= 0.05
    assert row["tuned"] >= LEAST

    trained = re.search(r"^Model +(\S+)$", done.stdout, re.MULTILINE)
    assert trained is not None
    (tmp_path / "conf" / "model" / "reckoner.yaml").write_text(f"model_id: reckoner\npath: {trained[1]}\n")
    chat = subprocess.run(
        [*LLSFLOW, "chat", "agent=calculator", "--model", "reckoner"],
        cwd=tmp_path,
        env=serving.environment(),
        input="What is 12 times 34?\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (chat.returncode, chat.stdout) == (0, "408\n"), chat.stderr

    with resolve_conf_uri("conf://dataset/arithmetic/held_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    serving.start()
    try:
        client = serving.client()
        wait_for(lambda: serving.part("engine") == "ok", "the engine")
        agents: Any = client.alpha.agents
        agent_id = agents.create(agent_config=AGENT).agent_id
        right = 0
        for asked in rows[:40]:
            session_id = agents.session.create(agent_id, session_name="sum").session_id
            said = [{"role": "user", "content": asked["question"]}]
            turn = agents.turn.create(session_id, agent_id=agent_id, messages=said)
            used = [step.step_type for step in turn.steps] == ["inference", "tool_execution", "inference"]
            right += used and turn.output_message.content == asked["answer"]
        assert right >= LEAST * 40
        benchmark: Any = client.alpha.eval
        job = benchmark.run_eval("arithmetic", benchmark_config={"eval_candidate": {"type": "agent", "config": AGENT}})
        wait_for(
            lambda: benchmark.jobs.status(job.job_id, benchmark_id="arithmetic").status in ("completed", "failed"),
            "the job",
        )
        result = benchmark.jobs.retrieve(job.job_id, benchmark_id="arithmetic")
        accuracy = result.scores["basic::equality"].aggregated_results["accuracy"]["accuracy"]
        assert accuracy == pytest.approx(row["tuned"])
    finally:
        serving.stop()
