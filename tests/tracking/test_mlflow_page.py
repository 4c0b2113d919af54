"""The MLflow page of a whole run, as a reviewer sees it in a browser."""

from __future__ import annotations

import contextlib
import html
import json
import math
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llsflow.report import ReportMaterial, Score, build_report
from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Server, Tracking, provenance, serve
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DIGEST = "0123456789abcdef" * 4
NOTE = """## quickstart
Fine-tunes **tiny-llama** on *iso_dates* (20,000 rows).

Exact match: base 0.000, tuned **0.970**. [Prefect run](http://127.0.0.1:4200/runs/flow-run/abc)

    llsflow run quickstart
"""


@dataclass
class Recorded:
    """A run tree and the page over it."""

    tracking: Tracking
    server: Server
    runs: dict[str, str]
    model_id: str
    home: Path

    def tab(self, run: str, tab: str) -> str:
        """Return the address of a tab of a run's page."""
        return self.tracking.page(f"{self.runs[run]}/{tab}")

    def get(self, path: str, **body: Any) -> Any:
        """Ask the page's own API."""
        request = urllib.request.Request(f"{self.server.url}/ajax-api/2.0/mlflow/{path}")  # noqa: S310
        if body:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return json.load(answer)


def record_tree(tracking: Tracking, folder: Path) -> tuple[dict[str, str], str]:
    """Record pipeline -> prepare, train, export, evaluate-base, evaluate-tuned as the steps do."""
    pipeline = tracking.open_run("quickstart", tags={"llsflow.plan": "abc123"})
    pipeline.set_note(NOTE)
    pipeline.log_params({"model": "tiny-llama", "dataset": "iso_dates", "recipe": {"lr": 1e-3, "batch_size": 64}})
    pipeline.log_text("name: quickstart\nseed: 0\n", "config/resolved.yaml")
    pipeline.log_text("recipe.training_config.optimizer_config.lr=1e-3\n", "config/overrides.txt")
    pipeline.log_text(json.dumps(provenance(), indent=2), "config/provenance.json")
    # the page of the whole run names the data and the model too
    pipeline.log_dataset("iso_dates", DIGEST, 20_000, "conf/dataset/iso_dates.jsonl", "training")
    prepare = tracking.open_run("prepare", parent_id=pipeline.id)
    prepare.log_dataset("iso_dates", DIGEST, 20_000, "conf/dataset/iso_dates.jsonl", "training")
    prepare.finish("FINISHED")
    train = tracking.open_run("train", parent_id=pipeline.id)
    curves: dict[str, list[tuple[int, float]]] = {}
    for step in range(1, 301):
        loss = 5 * math.exp(-step / 60) + 0.05
        point = {"train/loss": loss, "train/lr": 1e-3 * min(1, step / 30), "train/grad_norm": 1 + 1 / step}
        point["train/tokens_per_s"] = 21_000 + step
        if step % 50 == 0:
            point["val/loss"] = loss + 0.1
        train.log_metrics(point, step)
        for name, value in point.items():
            curves.setdefault(name, []).append((step, value))
    train.finish("FINISHED")
    for label, accuracy in (("base", 0.0), ("tuned", 0.97)):
        evaluate = tracking.open_run(f"evaluate-{label}", parent_id=pipeline.id)
        evaluate.log_dataset("iso_dates:held_out", DIGEST[::-1], 200, "conf/dataset/iso_dates.jsonl", "eval")
        evaluate.log_metrics({"eval/iso_dates/accuracy": accuracy, "eval/iso_dates/accuracy_stderr": 0.012})
        rows = [{"index": i, "prompt": f"3 March {2000 + i}", "expected": f"{2000 + i}-03-03"} for i in range(20)]
        evaluate.log_table([{**row, "generated": row["expected"], "score": accuracy} for row in rows], "rows.json")
        evaluate.finish("FINISHED")
    tracking.open_run("export", parent_id=pipeline.id).finish("FINISHED")
    scores = {"eval/iso_dates/accuracy": 0.97}
    model_id = pipeline.log_model("quickstart", folder, {"lr": 1e-3}, scores, [("iso_dates:held_out", DIGEST[::-1])])
    pipeline.register("quickstart", model_id, folder, ["champion"], {"gate": "pass", "gate.delta": "0.97"})
    material = ReportMaterial("quickstart", scores=[Score("base", "accuracy", 0.0), Score("tuned", "accuracy", 0.97)])
    material = ReportMaterial(**{**vars(material), "curves": curves, "command": "llsflow run quickstart"})
    for path in build_report(folder / "report", material):
        pipeline.log_file(path, "report/plots" if path.suffix == ".png" else "report")
    pipeline.set_tags({"gate": "pass", "gate.delta": "0.97"})
    pipeline.log_metrics({"eval/iso_dates/difference": 0.97})
    pipeline.finish("FINISHED")
    runs = {"pipeline": pipeline.id, "prepare": prepare.id, "train": train.id}
    return {**runs, "evaluate-tuned": evaluate.id}, model_id


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("LLSFLOW_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (folder / "home" / "mlflow").mkdir(parents=True)
        shutil.copyfile(empty_store, folder / "home" / "mlflow" / "mlflow.db")
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = serve(port=taken.getsockname()[1], config=TrackingConfig(experiment="exp"))
        stack.callback(server.stop)
        assert server.url != f"http://127.0.0.1:{taken.getsockname()[1]}"
        tracking = Tracking(TrackingConfig(experiment="exp"))
        tracking.connect()
        runs, model_id = record_tree(tracking, folder)
        yield Recorded(tracking, server, runs, model_id, folder / "home")
        tracking.close()


@pytest.fixture(autouse=True)
def home_of_the_recorded(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(recorded.home))


def page_text(url: str, folder: Path, waiting_for: str) -> str:
    """Return what a browser shows at `url`, once it shows `waiting_for`.

    LLSFLOW_SCREENSHOTS names a folder that takes a picture of each page, to be looked at.
    """
    assert BROWSER
    shot = os.environ.get("LLSFLOW_SCREENSHOTS")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--window-size=1500,1800"]
    for _ in range(5):
        done = subprocess.run(
            [BROWSER, *arguments, "--virtual-time-budget=30000", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
        text = html.unescape(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", done.stdout, flags=re.DOTALL))
        if waiting_for in text:
            break
    if shot:
        name = re.sub(r"\W+|[0-9a-f]{32}|workflowType.*", "-", url.partition("experiments/")[2]).strip("-")
        target = f"--screenshot={shot}/{name}.png"
        subprocess.run(
            [BROWSER, *arguments, "--virtual-time-budget=30000", target, url], capture_output=True, check=True
        )
    return text


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: install it to see the page")


@needs_browser
def test_overview_of_the_pipeline_run(recorded: Recorded, tmp_path: Path) -> None:
    url = recorded.tracking.page(recorded.runs["pipeline"])
    assert url.startswith(recorded.server.url)
    text = page_text(url, tmp_path, "Fine-tunes")
    for shown in ("quickstart", "Fine-tunes", "tiny-llama", "Prefect run", "recipe.lr", "0.001", "Finished"):
        assert shown in text
    for shown in ("eval/iso_dates/difference", "0.97", "gate", "evaluate-tuned", f"iso_dates ({DIGEST[:32]})", "v1"):
        assert shown in text


@needs_browser
def test_charts_of_the_training_run(recorded: Recorded, tmp_path: Path) -> None:
    url = recorded.tab("train", "model-metrics")
    text = page_text(url, tmp_path, "train/loss")
    for name in ("train/loss", "train/lr", "train/grad_norm", "train/tokens_per_s", "val/loss"):
        assert name in text or name.partition("/")[2] in text


@needs_browser
def test_runs_of_the_experiment_stand_in_a_tree(recorded: Recorded, tmp_path: Path) -> None:
    text = page_text(recorded.tracking.page(), tmp_path, "quickstart")
    assert re.search(r"6\s+matching runs", text)
    assert "evaluate-base" not in text  # folded under its parent


@needs_browser
def test_report_in_the_artifacts(recorded: Recorded, tmp_path: Path) -> None:
    url = recorded.tab("pipeline", "artifacts/report/report.html")
    assert "report.html" in page_text(url, tmp_path, "report.html")


@needs_browser
def test_model_and_its_version(recorded: Recorded, tmp_path: Path) -> None:
    experiment = recorded.tracking.page("x").partition("/runs/")[0]
    text = page_text(f"{experiment}/models/{recorded.model_id}", tmp_path, "quickstart")
    for shown in ("eval/iso_dates/accuracy", "0.97", "iso_dates:held_out", "v1"):
        assert shown in text


@needs_browser
def test_artifacts_of_the_pipeline_run(recorded: Recorded, tmp_path: Path) -> None:
    text = page_text(recorded.tab("pipeline", "artifacts"), tmp_path, "report")
    assert "config" in text
    assert "report" in text


def test_the_page_reads_our_artifacts(recorded: Recorded) -> None:
    run_id = recorded.runs["pipeline"]
    for path in ("config/resolved.yaml", "report/report.html", "report/plots/loss.png"):
        url = f"{recorded.server.url}/get-artifact?path={path}&run_uuid={run_id}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            assert len(answer.read()) > 10
    listed = recorded.get(f"artifacts/list?run_id={run_id}&path=report")
    assert {Path(item["path"]).name for item in listed["files"]} == {"plots", "report.html", "report.md"}


def test_the_tree_data_and_model_behind_the_page(recorded: Recorded) -> None:
    experiment = recorded.get(f"runs/get?run_id={recorded.runs['pipeline']}")["run"]["info"]["experiment_id"]
    children = recorded.get(
        "runs/search",
        experiment_ids=[experiment],
        filter=f"tags.mlflow.parentRunId = '{recorded.runs['pipeline']}'",
    )["runs"]
    assert {run["info"]["run_name"]: run["info"]["status"] for run in children} == dict.fromkeys(
        ("prepare", "train", "evaluate-base", "evaluate-tuned", "export"), "FINISHED"
    )
    history = recorded.get(f"metrics/get-history?run_id={recorded.runs['train']}&metric_key=train/loss")["metrics"]
    assert [point["step"] for point in history] == list(range(1, 301))
    prepare = recorded.get(f"runs/get?run_id={recorded.runs['prepare']}")["run"]
    (read,) = prepare["inputs"]["dataset_inputs"]
    assert read["dataset"]["digest"] == DIGEST[:32]
    assert {"key": "mlflow.data.context", "value": "training"} in read["tags"]
    model = recorded.get(f"logged-models/{recorded.model_id}")["model"]
    assert model["info"]["source_run_id"] == recorded.runs["pipeline"]
    version = recorded.get("registered-models/alias?name=quickstart&alias=champion")["model_version"]
    assert {"key": "gate", "value": "pass"} in version["tags"]


def test_one_server_for_one_home(recorded: Recorded) -> None:
    again = serve(config=TrackingConfig(experiment="exp"))
    assert (again.url, again.pid, again.reused) == (recorded.server.url, recorded.server.pid, True)
