"""What was measured of the API, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Rounds = Sequence[Sequence[float]]
"""Seconds of single requests, round by round."""


REFERENCE = "the reference server, measured on this kind of machine"


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    ours: str
    beside: str = ""
    theirs: str = ""
    ratios: str = ""
    median: str = ""
    target: str = ""


def ratio_line(
    what: str,
    beside: str,
    ours: Rounds,
    theirs: Rounds,
    target: float | None = None,
    middle: Callable[[Sequence[float]], float] = statistics.median,
) -> Line:
    """Return the line of a comparison; `middle` makes one figure of a round's times."""
    pairs = [(middle(a), middle(b)) for a, b in zip(ours, theirs, strict=True)]
    ratios = [a / b for a, b in pairs]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return Line(
        what,
        seconds(statistics.median(a for a, _ in pairs)),
        beside,
        seconds(statistics.median(b for _, b in pairs)),
        shown,
        f"**{statistics.median(ratios):.2f}**",
        f"≤ {target:g}" if target else "",
    )


def check_line(what: str, found: str, target: str, kept: bool) -> Line:
    """Return the line of a figure that stands alone."""
    return Line(what, found, median="kept" if kept else "**missed**", target=target)


def added_line(
    what: str,
    beside: str,
    ours: Rounds,
    theirs: Rounds,
    target: float | None = None,
    middle: Callable[[Sequence[float]], float] = statistics.median,
) -> Line:
    """Return the line of what ours needs above another; `target` in seconds, `middle` as in `ratio_line`."""
    pairs = [(middle(a), middle(b)) for a, b in zip(ours, theirs, strict=True)]
    more = [a - b for a, b in pairs]
    return Line(
        what,
        seconds(statistics.median(a for a, _ in pairs)),
        beside,
        seconds(statistics.median(b for _, b in pairs)),
        ", ".join(f"+ {one * 1e3:.1f} ms" for one in more),
        f"**+ {seconds(statistics.median(more))}**",
        f"≤ + {target * 1e3:g} ms" if target else "",
    )


def quoted_line(what: str, ours: Rounds, theirs: float | None = None, target: float | None = None) -> Line:
    """Return the line of a time beside the reference server's, which was measured on another day; all in seconds."""
    middles = [statistics.median(one) for one in ours]
    middle = statistics.median(middles)
    ratios = [one / theirs for one in middles] if theirs else []
    return Line(
        what,
        seconds(middle),
        REFERENCE if theirs else "",
        seconds(theirs) if theirs else "",
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
        f"**{statistics.median(ratios):.2f}**" if ratios else "",
        f"≤ {target * 1e3:g} ms" if target else "",
    )


def seconds(value: float) -> str:
    """Return a time as people read it."""
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value:.2f} s"


def table(lines: Sequence[Line]) -> str:
    """Return the lines as a Markdown table."""
    head = ["| | ours | beside | | ours / that, round by round | median | target |", "|---|---|---|---|---|---|---|"]
    return "\n".join(
        [
            *head,
            *(
                f"| {line.what} | {line.ours} | {line.beside} | {line.theirs} | {line.ratios} | {line.median} "
                f"| {line.target} |"
                for line in lines
            ),
        ]
    )
