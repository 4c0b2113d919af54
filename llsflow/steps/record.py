"""Step `record`: stub."""

from __future__ import annotations

from typing import Any

from llsflow.steps.session import StepContext


def run(context: StepContext) -> dict[str, Any]:
    return {"table": context.inputs["compare"].summary["table"]} if "compare" in context.inputs else {}
