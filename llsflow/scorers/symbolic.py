"""The process behind equivalence.py: one line in (limit and two trees), one line out (true or false)."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from typing import Any


def expression(tree: list[Any]) -> Any:
    """Return the sympy expression of a tree of latex.parse, as JSON gives it back."""
    import sympy

    kind, *parts = tree
    if kind == "num":
        return sympy.Rational(parts[0].rstrip(".") or "0")
    if kind == "sym":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infty": sympy.oo}
        return constants.get(parts[0], sympy.Symbol(parts[0]))
    if kind == "fn":
        functions = {"arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "ln": sympy.log}
        if parts[0] == "log":
            return sympy.log(expression(parts[1]), 10)
        function = functions.get(parts[0]) or getattr(sympy, parts[0])
        return function(expression(parts[1]))
    values = [expression(part) for part in parts]
    if kind in ("neg", "abs"):
        return -values[0] if kind == "neg" else sympy.Abs(values[0])
    left, right = values
    operators = {"add": sympy.Add, "mul": sympy.Mul, "pow": sympy.Pow}
    if kind in operators:
        return operators[kind](left, right)
    return left - right if kind == "sub" else left / right


def equal(left: list[Any], right: list[Any]) -> bool:
    """Return whether sympy simplifies the difference to zero."""
    import sympy

    return bool(sympy.simplify(expression(left) - expression(right)) == 0)


def main() -> None:
    """Answer until the pipe closes; a line that takes too long ends the process."""
    import sympy  # noqa: F401 - its import must not count against the first pair

    _limit_memory(int(sys.argv[1]))
    _say("ready")
    for line in sys.stdin:
        limit_seconds, left, right = json.loads(line)
        # this process has a main thread of its own: the default action of the timer's signal ends it
        signal.setitimer(signal.ITIMER_REAL, limit_seconds)
        result = equal(left, right)
        signal.setitimer(signal.ITIMER_REAL, 0)
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
