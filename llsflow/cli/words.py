"""Numbers as people read them."""

from __future__ import annotations


def amount(value: float | None) -> str:
    """Return a count: 200, 20,000, 1.2 M, 7.6 G."""
    return "" if value is None else _scaled(value, {1e9: "G", 1e6: "M"}) or f"{value:,.0f}"


def size(value: float | None) -> str:
    """Return bytes in decimal units: 2.7 MB."""
    return "" if value is None else _scaled(value, {1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB"}) or f"{value:.0f} B"


def _scaled(value: float, units: dict[float, str]) -> str:
    """Return the value in the first unit that it reaches; empty where it reaches none."""
    return next((f"{value / limit:.1f} {unit}" for limit, unit in units.items() if value >= limit), "")


def duration(seconds: float | None) -> str:
    """Return a time: 0.3 s, 42 s, 2:05 min, 3:10 h."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02d} h"


def score(value: float | None, interval: list[float] | None = None, *, sign: bool = False) -> str:
    """Return a score with its 95 % interval below: 0.985, [0.957, 0.995]."""
    if value is None:
        return "none"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    if interval is None:
        return text
    low, high = (f"{end:+.3f}" if sign else f"{end:.3f}" for end in interval)
    return f"{text}\n[{low}, {high}]"
