"""What is slow takes no thread from what is quick, and what is loaded early is what requests need."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llsflow.api.deps import SLOW_AT_ONCE, WARM
from tests.api.conftest import Served, register
from tests.api.test_evaluations import CONFIG
from tests.patience import PATIENCE_SECONDS


def test_many_slow_requests_keep_no_quick_one_waiting(served: Served) -> None:
    register(served.http)
    body = {"benchmark_id": "sums", "dataset_id": "sums", "scoring_functions": ["basic::equality"]}
    served.http.post("/v1alpha/eval/benchmarks", json=body)
    going_on, under_way = threading.Event(), threading.Semaphore(0)
    evaluate = served.services.jobs.evaluate_rows

    def slow(*args: Any) -> Any:
        under_way.release()
        going_on.wait(PATIENCE_SECONDS)
        return evaluate(*args)

    served.services.jobs.evaluate_rows = slow  # type: ignore[method-assign]
    asked = {"benchmark_config": CONFIG, "input_rows": [{"a": 1}], "scoring_functions": ["basic::equality"]}
    with ThreadPoolExecutor(60) as pool:
        waiting = [
            pool.submit(served.http.post, "/v1alpha/eval/benchmarks/sums/evaluations", json=asked) for _ in range(60)
        ]
        for _ in range(SLOW_AT_ONCE):
            assert under_way.acquire(timeout=PATIENCE_SECONDS)
        assert served.http.get("/v1beta/datasets/sums", timeout=PATIENCE_SECONDS).status_code == 200
        assert not any(one.done() for one in waiting)
        going_on.set()
        assert {one.result(PATIENCE_SECONDS).status_code for one in waiting} == {200}


def test_what_is_loaded_early_is_there() -> None:
    for name in WARM:
        importlib.import_module(name)
