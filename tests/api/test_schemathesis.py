"""Thousands of requests made up from the published schema: no 5xx, and no answer that the schema does not know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.conftest import Served, register
from tests.api.test_post_training import REQUEST

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_server_keeps_its_schema(served: Served, seed: int, tmp_path: Path) -> None:
    # what the examples of the schema name
    register(served.http)
    body = {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": ["basic::equality"]}
    assert served.http.post("/v1alpha/eval/benchmarks", json=body).status_code == 200
    job = {**REQUEST, "job_uuid": "sums-sft"}
    assert served.http.post("/v1alpha/post-training/supervised-fine-tune", json=job).status_code == 200
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{served.url}/openapi.json"]
    options = ["--checks", ",".join(CHECKS), "--seed", str(seed), "--max-examples", "30", "--no-shrink"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "Tested: 40" in done.stdout
