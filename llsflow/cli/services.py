"""`llsflow ui` and `llsflow stop`: the pages in the background."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser

from llsflow.cli.joined import new_stack
from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking, running_page, serve


def ui(options: argparse.Namespace) -> int:
    """Start MLflow's page on this home's store, or say where it already runs."""
    if options.stop:
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
    """End what runs in the background for this home."""
    ended = [name for name, did in (("MLflow page", _stop_page()), ("Prefect server", new_stack().stop())) if did]
    print(f"ended: {', '.join(ended)}" if ended else "nothing runs in the background")
    return 0


def _stop_page() -> bool:
    server = running_page()
    if server is None:
        return False
    server.stop()
    return True
