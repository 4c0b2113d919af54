"""Requests in turns, and one small request again and again beside a load."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from wire import Wire

WARM = 20
"""Requests of each kind before the first that counts."""
ASK_EVERY_SECONDS = 0.02


def said(part: str, words: str) -> None:
    """Tell how far a part is."""
    print(f"  {part}: {words}", file=sys.stderr, flush=True)


def in_turns(
    asked: Mapping[str, Callable[[], float]], rounds: int, count: int, part: str
) -> dict[str, list[list[float]]]:
    """Return the seconds of each request, round by round: A B C, C B A, A B C, …"""
    times: dict[str, list[list[float]]] = {name: [[] for _ in range(rounds)] for name in asked}
    for ask in asked.values():
        for _ in range(min(WARM, count)):
            ask()
    for number in range(rounds):
        for turn in range(count):
            for name in list(asked) if turn % 2 == 0 else list(asked)[::-1]:
                times[name][number].append(asked[name]())
        medians = ", ".join(f"{name} {statistics.median(times[name][number]) * 1e3:.2f} ms" for name in asked)
        said(part, f"round {number + 1}: {medians}")
    return times


def asking(port: int, request: bytes, done: Callable[[float], bool]) -> list[float]:
    """Return the seconds of one small request every 20 ms; one that is late does not delay the next."""
    times: list[float] = []
    began = time.perf_counter()
    with Wire(port) as wire:
        wire.ask(request)
        while not done(time.perf_counter() - began):
            times.append(wire.timed(request))
            time.sleep(max(0.0, ASK_EVERY_SECONDS - times[-1]))
    return times


def p99(times: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(times)[int(len(times) * 0.99)]
