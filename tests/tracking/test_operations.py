"""A crash between a write to the store and its removal from the spool: the write comes again."""

from __future__ import annotations

from pathlib import Path

from llsflow.tracking import Tracking
from llsflow.tracking.operations import OPERATIONS, REF, Target, apply
from llsflow.tracking.spool import Operation

SHA256 = "ab" * 32
NOW = "2026-03-04T00:00:00Z"
TURN = {
    **{"name": "bot", "agent_id": "a", "session_id": "s", "turn_id": "t"},
    **{"started": NOW, "ended": NOW, "messages": []},
}


def test_every_operation_may_be_done_twice(tracking: Tracking, tmp_path: Path) -> None:
    client, experiment = tracking._client, tracking._experiment_id
    (tmp_path / "file.txt").write_text("x")
    operations: list[Operation] = [
        {"op": "open", "name": "train", "tags": {REF: "pending-1"}, "time": 1},
        {"op": "params", "params": {"a": "1"}},
        {"op": "metrics", "points": [["loss", 0.5, 1, 1], ["loss", float("nan"), 2, 2]]},
        {"op": "dataset", "name": "d", "digest": SHA256, "rows": 1, "source": "s", "context": "eval"},
        {"op": "text", "text": "t", "path": "t.txt"},
        {"op": "file", "file": str(tmp_path / "file.txt"), "folder": ""},
        {"op": "table", "table": {"columns": ["a"], "data": [[1]]}, "path": "rows.json"},
        {"op": "tags", "tags": {"k": "v"}},
        {"op": "traces", "traces": [TURN]},
        {
            "op": "model",
            "name": "m",
            "folder": "/f",
            "params": {},
            "metrics": {},
            "datasets": [],
            "tags": {},
            "time": 1,
        },
        {"op": "register", "name": "m", "model_id": "", "folder": "/f", "aliases": ["a"], "tags": {}},
        {"op": "finish", "status": "FAILED", "time": 9},
    ]
    assert {op["op"] for op in operations} == set(OPERATIONS) - {"use"}
    states = []
    for _ in range(2):
        target = Target(client, experiment, "")
        made = [apply(target, op) for op in operations]
        run = client.get_run(target.run_id)
        history = client.get_metric_history(target.run_id, "loss")
        states.append(
            (
                *(made, run.data.params, run.data.tags, run.info.status, run.info.end_time),
                *(str(run.inputs), str(run.outputs), [(point.step, point.timestamp) for point in history]),
                sorted(item.path for item in client.list_artifacts(target.run_id)),
                len(client.search_runs([experiment])),
                len(client.search_logged_models([experiment])),
                len(client.search_model_versions("name = 'm'")),
            )
        )
    assert states[0] == states[1]
    assert states[0][7] == [(1, 1), (2, 2)]
