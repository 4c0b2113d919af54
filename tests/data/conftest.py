"""An open store under the test's own LLSFLOW_HOME."""

from __future__ import annotations

from pathlib import Path

import pytest

from llsflow.data import stored
from llsflow.store import Store


@pytest.fixture
def store(llsflow_home: Path) -> Store:
    """The store that this process shares."""
    return stored.shared_store()
