"""`llsflow serve` as a user starts it: a real process with all it starts, in a folder of the user's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from llama_stack_client import LlamaStackClient

from tests.patience import PATIENCE_SECONDS

LLSFLOW = [sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())"]


SMALL_MODEL = """\
# A Llama small enough for a test.
model_id: small
init:
  architecture:
    model_type: llama
    hidden_size: 32
    intermediate_size: 48
    num_hidden_layers: 2
    num_attention_heads: 4
    num_key_value_heads: 4
    max_position_embeddings: 256
  tokenizer: bytes
"""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
    return found


class Serving:
    """One folder with one LLSFLOW_HOME, and the server over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "outputs"
        model = folder / "conf" / "model" / "small.yaml"
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_text(SMALL_MODEL)
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def environment(self) -> dict[str, str]:
        mine = ("LLSFLOW_HOME", "PREFECT_API_URL", "LLSFLOW_API_KEY", "LLSFLOW_STORE_URL")
        keep = {name: value for name, value in os.environ.items() if name not in mine}
        return {**keep, "COLUMNS": "100"}

    def type(self, *words: str) -> str:
        """Run a command in the folder to its end."""
        done = subprocess.run(
            [*LLSFLOW, *words],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *words: str) -> None:
        """Start the server, and wait until it takes jobs."""
        self.process = subprocess.Popen(
            [*LLSFLOW, "serve", "server.port=0", "server.mlflow_page=false", *words],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith("API "), first + self.process.stdout.read()
        self.url = first.split()[1]
        wait_for(lambda: self.part("worker") == "ok", "a worker")

    def part(self, name: str) -> str:
        """Return the state of a part of the server."""
        parts = httpx.get(f"{self.url}/v1/health", timeout=PATIENCE_SECONDS).json()["parts"]
        return str(parts[name]["state"])

    def client(self) -> LlamaStackClient:
        return LlamaStackClient(base_url=self.url, timeout=PATIENCE_SECONDS)

    def stop(self) -> str:
        """End the server as Ctrl-C does, and return what it said."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        told, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return told

    def processes(self) -> list[int]:
        """Return the living processes of this home, wherever they hang."""
        mark = f"LLSFLOW_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                ours = entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0")
                if ours and (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    found.append(int(entry.name))
        return found

    def kill_everything(self) -> None:
        """`kill -9` of every process, the server's own included."""
        assert self.process is not None
        self.process.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()
