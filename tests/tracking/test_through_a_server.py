"""Recording to an MLflow server instead of a database; the server goes away in the middle and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking, running_page, serve

pytestmark = pytest.mark.slow


def test_a_server_that_goes_away_and_comes_back(
    store_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = serve(port=0)
    try:
        tracking = Tracking(TrackingConfig(uri=server.url, experiment="through"))
        run = tracking.open_run("train", description="note")
        run.log_params({"lr": 1})
        run.log_text("seed: 0", "config/resolved.yaml")
        run.log_dataset("dates", "ab" * 32, 10, "x", "eval")
        for step in range(600):
            run.log_metrics({"loss": float(step)}, step)
        model = run.log_model("m", store_home, {"lr": 1}, {"accuracy": 0.9}, [("dates", "ab" * 32)])
        assert run.register("m", model, store_home, ["champion"]) == "1"
        assert run.register("m", model, store_home, ["champion"]) == "1"
        server.stop()
        assert running_page() is None
        for step in range(600, 700):
            run.log_metrics({"loss": float(step)}, step)
        run.flush()
        assert caplog.text.count("the run goes on") == 1
        port = int(server.url.rpartition(":")[2])
        server = serve(port=port)
        assert server.url.endswith(f":{port}")
        run.finish("FINISHED")
        history = tracking._client.get_metric_history(run.id, "loss")
        assert [point.step for point in history] == list(range(700))
        stored = tracking._client.get_run(run.id)
        assert (stored.info.status, stored.data.params) == ("FINISHED", {"lr": "1"})
        assert tracking._client.get_model_version_by_alias("m", "champion").run_id == run.id
        assert tracking.page(run.id).startswith(server.url)
        tracking.close()
    finally:
        server.stop()
