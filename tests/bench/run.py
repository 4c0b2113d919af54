"""All measurements, each in a process of its own, in turns with the peers; prints the README's tables.

    python tests/bench/run.py [--only train generate startup scoring api] [--rounds 3] [--clock wall]

The machine's speed drifts, so a ratio is taken between neighbours of one round, and the median of the rounds is
told. `--clock cpu` counts processor seconds of one thread, for a machine that others use as well. Peers are
installed in `.venv-peers`, beside `.venv` and never in it. Nothing here fails on a slow machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
API = "api"
PEER_PACKAGES = ("trl==1.13.0", "lm_eval==0.4.13", "peft", "datasets", "accelerate")
SHARED_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
"""The same versions on both sides: what is compared is what stands on them."""


@dataclass(frozen=True)
class Contender:
    """One command of a comparison; `rate` comes from its last line of output, or is 1 / its wall time."""

    name: str
    command: Sequence[str | Path]
    target: float | None = None
    """Where it is a peer: the ratio ours / peer that we are to reach."""


@dataclass(frozen=True)
class Result:
    """One measurement."""

    rate: float
    wall_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Comparison:
    """Ours first, then the peers."""

    title: str
    unit: str
    contenders: Sequence[Contender]
    rounds: int
    results: dict[str, list[Result]] = field(default_factory=dict)


def measure(contender: Contender, environment: Mapping[str, str]) -> Result:
    """Run one contender to its end.

    Raises:
        SystemExit: it failed; its output is told.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen([str(part) for part in contender.command], stdout=output, stderr=errors,
                                   env={**os.environ, **environment}, cwd=ROOT)  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{contender.name} failed:\n{errors.read()[-3000:]}")
        lines = output.read().strip().splitlines()
    rate = float(json.loads(lines[-1])["rate"]) if lines and lines[-1].startswith('{"rate"') else 1 / wall
    return Result(rate, wall, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def compare(comparison: Comparison, environment: Mapping[str, str]) -> None:
    """Measure in turns: A B C, C B A, A B C, …"""
    for number in range(comparison.rounds):
        turns = comparison.contenders if number % 2 == 0 else comparison.contenders[::-1]
        for contender in turns:
            result = measure(contender, environment)
            comparison.results.setdefault(contender.name, []).append(result)
            print(f"  {comparison.title}, round {number + 1}: {contender.name} {result.rate:,.1f} {comparison.unit}, "
                  f"{result.peak_bytes / 2**20:,.0f} MiB", file=sys.stderr, flush=True)  # fmt: skip


def table(comparison: Comparison) -> str:
    """Return a comparison as a Markdown table."""
    ours = comparison.results[comparison.contenders[0].name]
    lines = [
        f"### {comparison.title} (medians of {comparison.rounds} rounds)",
        "",
        f"| | {comparison.unit} | ours / this, round by round | median | target | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for contender in comparison.contenders:
        theirs = comparison.results[contender.name]
        rate = statistics.median(result.rate for result in theirs)
        peak = statistics.median(result.peak_bytes for result in theirs) / 2**20
        ratios = [a.rate / b.rate for a, b in zip(ours, theirs, strict=True)]
        own = contender is comparison.contenders[0]
        shown = "" if own else ", ".join(f"{ratio:.2f}" for ratio in ratios)
        middle = "" if own else f"**{statistics.median(ratios):.2f}**"
        target = f"≥ {contender.target:g}" if contender.target else ""
        lines.append(f"| {contender.name} | {rate:,.1f} | {shown} | {middle} | {target} | {peak:,.0f} MiB |")
    return "\n".join(lines)


def startup_table(comparison: Comparison) -> str:
    """Return the start-up times as a Markdown table; here the yardstick comes first."""
    yardstick = comparison.results[comparison.contenders[0].name]
    lines = [
        f"### {comparison.title} (medians of {comparison.rounds} rounds)",
        "",
        "| command | seconds | times the first row | target |",
        "|---|---|---|---|",
    ]
    for contender in comparison.contenders:
        own = comparison.results[contender.name]
        seconds = statistics.median(result.wall_seconds for result in own)
        pairs = zip(own, yardstick, strict=True)
        ratio = statistics.median(a.wall_seconds / b.wall_seconds for a, b in pairs)
        target = f"≤ {contender.target:g}" if contender.target else ""
        lines.append(f"| `{contender.name}` | {seconds:.2f} | {ratio:.2f} | {target} |")
    return "\n".join(lines)


def ensure_peers() -> None:
    """Make `.venv-peers` with the peers and our versions of what both sides stand on."""
    wanted = [*PEER_PACKAGES, *(f"{name}=={version(name).split('+')[0]}" for name in SHARED_PACKAGES)]
    memo = PEERS.parents[1] / "bench-packages.txt"
    if memo.is_file() and memo.read_text() == "\n".join(wanted):
        return
    print("installing the peers into .venv-peers (some minutes) …", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(PEERS.parents[1])], check=True)
    subprocess.run([str(PEERS), "-m", "pip", "install", "--quiet", *wanted], check=True)
    memo.write_text("\n".join(wanted))


def comparisons(only: Sequence[str], fixture: Path, rounds: int, clock: str) -> dict[str, Comparison]:
    """Return the comparisons asked for, by name; what measures itself is none of them."""
    how = ["--clock", clock, "--threads", "1" if clock == "cpu" else "2"]
    train: list[str | Path] = [HERE / "train.py", *how, fixture]
    generate: list[str | Path] = [HERE / "generate.py", *how, fixture]
    seconds = "cpu second, one thread" if clock == "cpu" else "second, two threads"
    own = Path(sys.executable).parent / "llsflow"
    imports = "import hydra, pydantic"
    every = {
        "train": Comparison(
            "Supervised training",
            f"real tokens a {seconds}",
            [
                Contender("llsflow", [sys.executable, *train, "llsflow"]),
                Contender("raw", [sys.executable, *train, "raw"], target=0.95),
                Contender("trl-sft", [PEERS, *train, "trl-sft"], target=1.8),
            ],
            rounds,
        ),
        "generate": Comparison(
            "Evaluation by generation",
            f"rows a {seconds}",
            [
                Contender("llsflow", [sys.executable, *generate, "llsflow"]),
                Contender("sorted-batch", [sys.executable, *generate, "sorted-batch"], target=0.95),
                Contender("lm-eval", [PEERS, *generate, "lm-eval"], target=1.0),
            ],
            rounds,
        ),
        "startup": Comparison(
            "Start-up",
            "starts/s",
            [
                Contender(f'python -c "{imports}"', [sys.executable, "-c", imports]),
                Contender("llsflow --help", [own, "--help"], target=3),
                Contender("llsflow ls", [own, "ls"], target=3),
                Contender("llsflow plan quickstart", [own, "plan", "quickstart"], target=3),
            ],
            2 * rounds + 1,
        ),
        "scoring": Comparison(
            "Scoring and accuracy, basic::equality, 100,000 rows",
            "rows/s",
            [Contender("llsflow", [sys.executable, HERE / "scoring.py"])],
            rounds,
        ),
    }
    return {name: every[name] for name in only if name in every}


def api_section(rounds: int) -> str:
    """Return what `api.py` measures: it starts servers of its own, and tells more than one rate."""
    command = [sys.executable, str(HERE / "api.py"), "--rounds", str(rounds)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def machine() -> str:
    """Return the machine and the versions, in one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lightning"))
    peers = ", ".join(PEER_PACKAGES[:2])
    return f"{os.cpu_count()} cores of {cpu}, Python {platform.python_version()}, {versions}; peers: {peers}"


def main() -> None:
    """Measure what was asked for and print the tables."""
    names = ("train", "generate", "startup", "scoring", API)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--fixture", type=Path, help="where the fixture is kept; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fixture = options.fixture or Path(scratch, "fixture")
        if {"train", "generate"} & set(options.only):
            ensure_peers()
            if not (fixture / "model" / "config.json").is_file():
                subprocess.run(
                    [sys.executable, str(HERE / "make_fixture.py"), str(fixture)], check=True, stdout=sys.stderr
                )
        environment = {"LLSFLOW_HOME": str(Path(scratch, "home")), "HF_HUB_OFFLINE": "1"}
        chosen = comparisons(options.only, fixture.absolute(), options.rounds, options.clock)
        for comparison in chosen.values():
            compare(comparison, environment)
    api = api_section(options.rounds) if API in options.only else ""
    print(f"\nMeasured on {machine()}.\n")
    for name, comparison in chosen.items():
        print((startup_table if name == "startup" else table)(comparison) + "\n")
    print(api, end="")


if __name__ == "__main__":
    main()
