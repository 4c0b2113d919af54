"""What importing and loading configuration costs: nothing heavy, measured in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "lightning", "mlflow", "prefect", "pandas", "matplotlib", "numpy", "fastapi")


def loaded_by(code: str, folder: Path) -> set[str]:
    """Return the top-level modules that a fresh process has loaded after `code`."""
    script = f"import sys\n{code}\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_no_hydra(tmp_path: Path) -> None:
    code = "from llsflow.config import *; list_options(); complete(['q']); config_source('recipe/sft_full')"
    assert not loaded_by(code, tmp_path) & {"hydra", "omegaconf", "antlr4", *HEAVY}


def test_loading_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "from llsflow.config import *; to_yaml(load_experiment('quickstart', ['seed=1'])); json_schema()"
    modules = loaded_by(code, tmp_path)
    assert "hydra" in modules
    assert not modules & set(HEAVY)


def test_a_report_of_mistakes_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
from llsflow.config import load_experiment
from llsflow.errors import ConfigError
try:
    load_experiment('quickstart', ['seed=x', 'a=1'])
except ConfigError as error:
    assert len(error.mistakes) == 2
"""
    assert not loaded_by(code, tmp_path) & set(HEAVY)
