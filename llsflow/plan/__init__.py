"""An experiment compiled into a Plan: steps with content-addressed keys, and who runs them. Light: no torch."""

from __future__ import annotations

from llsflow.plan.compile import compile_plan
from llsflow.plan.runner import FlowState, FlowStatus, Runner, Submitter

__all__ = ["FlowState", "FlowStatus", "Runner", "Submitter", "compile_plan"]
