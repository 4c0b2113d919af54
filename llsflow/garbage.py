"""How a process that loads torch, MLflow and Prefect looks for garbage: seldom, and not at its end."""

from __future__ import annotations

import atexit
import gc

NEW_OBJECTS = 10_000
"""Between two looks at what is new; Python's own 700 look a thousand times while those libraries are imported."""


def look_seldom() -> None:
    """Have Python's garbage collector look seldom; to be called where a program begins.

    Of the 600,000 objects of those libraries none is ever garbage: looking through them is a seventh of a start, and
    the last look, at the end of the process, takes two seconds.
    """
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
