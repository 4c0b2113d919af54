"""`llsflow ui` and `llsflow stop`: the pages in the background."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser

from llsflow import home
from llsflow.cli.joined import new_stack
from llsflow.errors import ConflictError
from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking, running_page, serve


def ui(options: argparse.Namespace) -> int:
    """Start MLflow's page on this home's store, or say where it already runs."""
    if options.stop:
        _refuse_under_serve()
        print("MLflow page ended" if _stop_page() else "no MLflow page runs")
        return 0
    serve(port=options.port)
    tracking = Tracking(TrackingConfig())
    tracking.connect()
    page = tracking.page()
    print(f"MLflow: {page}  (`llsflow ui --stop` ends it)")
    if sys.stdout.isatty() and (sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}):
        webbrowser.open(page)
    return 0


def stop(options: argparse.Namespace) -> int:
    """End what runs in the background for this home.

    Raises:
        ConflictError: `llsflow serve` keeps it up.
    """
    _refuse_under_serve()
    ended = [name for name, did in (("MLflow page", _stop_page()), ("Prefect server", new_stack().stop())) if did]
    print(f"ended: {', '.join(ended)}" if ended else "nothing runs in the background")
    return 0


def _refuse_under_serve() -> None:
    """Raise where ending a part would only have `llsflow serve` start it again."""
    with home.alone("serve") as alone:
        if alone:
            return
    server = home.read_json(home.home() / "serve.json") or {}
    raise ConflictError(
        f"`llsflow serve` keeps these up (process {server.get('pid', 'unknown')}, {server.get('url', home.home())}): "
        "Ctrl-C there, or SIGTERM to that process, ends it with all it started"
    )


def _stop_page() -> bool:
    server = running_page()
    if server is None:
        return False
    server.stop()
    return True
