"""Jobs: one record each, changed only where its status allows."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from llsflow.errors import ConflictError, NotFoundError
from llsflow.schema.jobs import JobStatus
from llsflow.store import Store, StoredCheckpoint, StoredJob
from tests.patience import PATIENCE_SECONDS

NOW = datetime.now(UTC)


def job(job_id: str = "j", **other: Any) -> StoredJob:
    what: dict[str, Any] = {
        "kind": "post-training",
        "request": {"z": [1, 1.0, True, None, "é\ud800\0"], "a": {"big": 2**80}},
        "request_digest": "r",
        "config": "a: 1\n",
        "plan_key": "p",
        "status": JobStatus.SCHEDULED,
        "created_at": NOW,
    }
    return StoredJob(job_id, **{**what, **other})


def full(**other: Any) -> StoredJob:
    return job(
        kind="eval",
        benchmark_id="b",
        datasets=["d", "e"],
        error="tab\tand é",
        progress={"step": "train", "done": 3},
        metrics={"loss": 0.1, "acc": 1.0},
        links={"mlflow": "http://x"},
        flow_run_id="f",
        attempt=2,
        cancel_requested=True,
        started_at=NOW + timedelta(seconds=1),
        completed_at=NOW + timedelta(seconds=2),
        resources={"gpus": 1},
        **other,
    )


@pytest.mark.parametrize("made", [job(), full()])
def test_a_job_comes_back(store: Store, made: StoredJob) -> None:
    assert store.jobs.create(made) == (made, True)
    got = store.jobs.get("j")
    assert got == made
    assert got is not None
    assert isinstance(got.status, JobStatus)
    assert got.created_at.tzinfo is UTC
    assert repr(got.request) == repr(made.request)  # 1, 1.0 and true; the order of keys
    assert store.jobs.delete("j") is True
    assert store.jobs.delete("j") is False
    assert store.jobs.get("j") is None


def test_the_same_post_is_the_same_job(store: Store) -> None:
    first, _ = store.jobs.create(job())
    store.jobs.update("j", status=JobStatus.IN_PROGRESS)
    again, created = store.jobs.create(job(created_at=NOW + timedelta(seconds=9)))
    assert (again, created) == (replace(first, status=JobStatus.IN_PROGRESS), False)
    for other in (job(request_digest="s"), job(kind="eval")):
        with pytest.raises(ConflictError, match="'j' was posted with another body"):
            store.jobs.create(other)


def test_many_posts_at_once_make_one_job(store: Store) -> None:
    gate, made = threading.Barrier(6), list[str]()

    def post() -> None:
        for index in range(20):
            gate.wait(timeout=PATIENCE_SECONDS)
            if store.jobs.create(job(f"j{index}"))[1]:
                made.append(f"j{index}")

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [f"j{index}" for index in range(20)]


def test_lists(store: Store) -> None:
    now = datetime.now(UTC)  # not NOW, which a long suite leaves behind
    made = [
        job("a", created_at=now - timedelta(seconds=50)),
        job("b", created_at=now - timedelta(seconds=20), status=JobStatus.IN_PROGRESS),
        job("c", created_at=now - timedelta(seconds=10), status=JobStatus.COMPLETED, kind="eval"),
        job("d", created_at=now, status=JobStatus.FAILED, request_digest="s"),
        job("e", created_at=now + timedelta(seconds=1), status=JobStatus.CANCELLED, request_digest="s"),
    ]
    for each in made:
        store.jobs.create(each)
    assert [each.job_id for each in store.jobs.list()] == ["e", "d", "c", "b", "a"]
    assert [each.job_id for each in store.jobs.list("eval")] == ["c"]
    assert [each.job_id for each in store.jobs.unended()] == ["a", "b"]
    assert store.jobs.recent("r", 60) == made[2]
    assert store.jobs.recent("r", 5) is None
    assert store.jobs.recent("t", 60) is None


def test_updates(store: Store) -> None:
    store.jobs.create(job())
    ended = [status for status in JobStatus if status.ended]
    assert store.jobs.update("j", only_if=[JobStatus.SCHEDULED], status=JobStatus.IN_PROGRESS, started_at=NOW)
    assert not store.jobs.update("j", only_if=[JobStatus.SCHEDULED, *ended], status=JobStatus.FAILED)
    assert not store.jobs.update("j", only_if=[], status=JobStatus.FAILED)
    assert not store.jobs.update("nope", cancel_requested=True)
    assert store.jobs.update("j", error="lone \ud800 and \0", metrics={"loss": float("nan")}, progress=None)
    got = store.jobs.get("j")
    assert got is not None
    assert (got.status, got.started_at, got.error) == (JobStatus.IN_PROGRESS, NOW, "lone \\ud800 and \\x00")
    assert str(got.metrics) == "{'loss': nan}"
    for wrong in ({"kind": "eval"}, {"created_at": NOW}, {"nonsense": 1}, {}):
        with pytest.raises(TypeError, match="cannot change"):
            store.jobs.update("j", **wrong)


def test_one_of_many_racing_changes_wins(store: Store) -> None:
    store.jobs.create(job(status=JobStatus.IN_PROGRESS))
    won: list[JobStatus] = []

    def end(status: JobStatus) -> None:
        if store.jobs.update("j", only_if=[JobStatus.IN_PROGRESS], status=status):
            won.append(status)

    threads = [threading.Thread(target=end, args=(s,)) for s in JobStatus if s.ended for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.jobs.get("j").status is won[0]  # type: ignore[union-attr]


def test_times_have_zones(store: Store) -> None:
    with pytest.raises(Exception, match="without a zone"):
        store.jobs.create(job(created_at=datetime(2026, 1, 1)))
    east = datetime(2026, 1, 1, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    store.jobs.create(job(created_at=east))
    got = store.jobs.get("j")
    assert got is not None
    assert got.created_at.isoformat() == "2026-01-01T00:30:00.123456+00:00"


def test_checkpoints(store: Store) -> None:
    store.jobs.create(job("a"))
    store.jobs.create(job("b"))
    made = [
        StoredCheckpoint(f"{job_id}-step-{step}", job_id, step, step // 10, f"work/{job_id}/{step}", NOW, metrics)
        for job_id in ("a", "b")
        for step, metrics in ((20, None), (9, {"loss": 0.5}), (100, None))
    ]
    for each in reversed(made):
        store.jobs.add_checkpoint(each)
    a = sorted(made[:3], key=lambda each: each.step)
    b = sorted(made[3:], key=lambda each: each.step)
    assert store.jobs.checkpoints("a") == a
    assert store.jobs.all_checkpoints() == a + b
    assert store.jobs.checkpoint("b-step-9") == b[0]
    assert store.jobs.checkpoint("b-step-8") is None
    again = replace(a[0], path="elsewhere")
    store.jobs.add_checkpoint(again)
    assert store.jobs.checkpoints("a") == [again, *a[1:]]
    with pytest.raises(NotFoundError, match="there is no job 'nope'"):
        store.jobs.add_checkpoint(replace(a[0], job_id="nope"))
    store.jobs.delete("a")
    assert store.jobs.all_checkpoints() == b


def test_results(store: Store) -> None:
    store.jobs.create(job())
    assert store.jobs.result("j") is None
    store.jobs.set_result("j", b"\0\xff" * 1_000_000)
    assert store.jobs.result("j") == b"\0\xff" * 1_000_000
    store.jobs.set_result("j", b"other")
    assert store.jobs.result("j") == b"other"
    with pytest.raises(NotFoundError, match="there is no job 'nope'"):
        store.jobs.set_result("nope", b"")
    store.jobs.delete("j")
    assert store.jobs.result("j") is None
