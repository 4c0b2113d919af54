"""The process behind equivalence.py: one line in (limit and two answers), one line out (true or false)."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
from typing import Any


def expressions(text: str) -> list[Any]:
    """Return what math-verify reads in an answer: expressions of sympy, or the text where it reads none."""
    from math_verify import LatexExtractionConfig, parse

    # the process has a limit of its own: the library's would need a signal too
    boxed = parse(
        f"\\boxed{{{text}}}",
        parsing_timeout=None,
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
    )
    read: list[Any] = boxed or parse(text, parsing_timeout=None)
    return read


def equal(left: str, right: str) -> bool:
    """Return whether two answers have the same value.

    Source: math-verify (github.com/huggingface/Math-Verify), the check of the Open LLM Leaderboard.
    """
    from math_verify import verify

    return bool(verify(expressions(left), expressions(right), timeout_seconds=None))


def main() -> None:
    """Answer until the pipe closes; a line that takes too long ends the process."""
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401 - its import must not count against the first pair

    equal("1", "2")
    _limit_memory(int(sys.argv[1]))
    _say("ready")
    for line in sys.stdin:
        limit_seconds, left, right = json.loads(line)
        # the default action of the timer's signal ends the process; it counts processor time, so that a busy machine
        # gives the same scores as an idle one
        signal.setitimer(signal.ITIMER_PROF, limit_seconds)
        result = equal(left, right)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(json.dumps(result))


def _limit_memory(limit_bytes: int) -> None:
    import resource

    # macOS knows the limit and refuses it: there the time limit alone holds
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
