"""The record of every run in MLflow: the only package that uses MLflow, and light until a store is opened."""

from __future__ import annotations

from llsflow.tracking.provenance import provenance
from llsflow.tracking.run import Run
from llsflow.tracking.server import Server, running_page
from llsflow.tracking.store import Tracking, serve

__all__ = ["Run", "Server", "Tracking", "provenance", "running_page", "serve"]
