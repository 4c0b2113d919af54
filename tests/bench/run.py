"""All measurements, each in a process of its own, in turns with the peers; prints the README's tables.

    python tests/bench/run.py [--only train packed dpo large lora generate shared engine endpoint startup scoring api
                            turns] [--rounds 3] [--clock wall]

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
API, ENGINE, TURNS = "api", "engine", "turns"
FIXTURE = ("train", "packed", "dpo", "large", "lora", "generate", "shared", ENGINE)
"""What is measured on the fixture, most of it beside peers."""
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
    memory_target: float | None = None
    """The same of the peak memory, which we are not to exceed."""


@dataclass(frozen=True)
class Result:
    """One measurement."""

    rate: float
    wall_seconds: float
    peak_bytes: int
    more: Mapping[str, float] = field(default_factory=dict)
    """What else the last line of output tells."""


@dataclass(frozen=True)
class Comparison:
    """Ours first, then the peers."""

    title: str
    unit: str
    contenders: Sequence[Contender]
    rounds: int
    shares: Mapping[str, str] = field(default_factory=dict)
    """What else our own output tells, as a share: its name there -> what it is a share of."""
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
    told = json.loads(lines[-1]) if lines and lines[-1].startswith('{"rate"') else {"rate": 1 / wall}
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Result(float(told.pop("rate")), wall, peak, told)


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
    """Return a comparison as a Markdown table, with the ratios of memory where one of them has a target."""
    ours = comparison.results[comparison.contenders[0].name]
    with_memory = any(contender.memory_target for contender in comparison.contenders)
    head = ["", comparison.unit, "ours / this, round by round", "median", "target", "peak memory"]
    head += ["ours / this, median", "target"] if with_memory else []
    lines = [
        f"### {comparison.title} (medians of {comparison.rounds} rounds)",
        "",
        f"| {' | '.join(head).lstrip()} |",
        "|---" * len(head) + "|",
    ]
    for contender in comparison.contenders:
        theirs = comparison.results[contender.name]
        rate = statistics.median(result.rate for result in theirs)
        peak = statistics.median(result.peak_bytes for result in theirs) / 2**20
        pairs = list(zip(ours, theirs, strict=True))
        ratios = [a.rate / b.rate for a, b in pairs]
        own = contender is comparison.contenders[0]
        shown = "" if own else ", ".join(f"{ratio:.2f}" for ratio in ratios)
        middle = "" if own else f"**{statistics.median(ratios):.2f}**"
        cells = [contender.name, f"{rate:,.1f}", shown, middle, _target("≥", contender.target), f"{peak:,.0f} MiB"]
        if with_memory:
            memory = statistics.median(a.peak_bytes / b.peak_bytes for a, b in pairs)
            cells += ["" if own else f"**{memory:.2f}**", _target("≤", contender.memory_target)]
        lines.append(f"| {' | '.join(cells)} |")
    for name, what in comparison.shares.items():
        share = statistics.median(result.more[name] for result in ours)
        lines += ["", f"{what}: {share:.2%} of {comparison.contenders[0].name}'s time."]
    return "\n".join(lines)


def _target(sign: str, target: float | None) -> str:
    return f"{sign} {target:g}" if target else ""


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
        lines.append(f"| `{contender.name}` | {seconds:.2f} | {ratio:.2f} | {_target('≤', contender.target)} |")
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


def ensure_fixture(folder: Path, *, large: bool) -> None:
    """Write what is missing of the fixture, in processes of their own."""
    wanted = {"model": [], "large": ["--large"]} if large else {"model": []}
    for name, options in wanted.items():
        if not (folder / name / "config.json").is_file():
            command = [sys.executable, str(HERE / "make_fixture.py"), str(folder), *options]
            subprocess.run(command, check=True, stdout=sys.stderr)


def comparisons(only: Sequence[str], fixture: Path, rounds: int, clock: str) -> dict[str, Comparison]:
    """Return the comparisons asked for, by name; what measures itself is none of them."""
    how = ["--clock", clock, "--threads", "1" if clock == "cpu" else "2"]
    second = "cpu second, one thread" if clock == "cpu" else "second, two threads"
    every = {
        **_trainings([HERE / "train.py", *how, fixture], f"real tokens a {second}", rounds),
        **_others([HERE / "generate.py", *how, fixture], f"rows a {second}", rounds),
    }
    return {name: every[name] for name in only if name in every}


def _trainings(train: Sequence[str | Path], unit: str, rounds: int) -> dict[str, Comparison]:
    def ours(kind: str, target: float | None = None) -> Contender:
        return Contender(kind, [sys.executable, *train, kind], target)

    def trl(kind: str, target: float | None = None, memory_target: float | None = None) -> Contender:
        return Contender(kind, [PEERS, *train, kind], target, memory_target)

    large = [ours("llsflow-large"), trl("trl-large", memory_target=0.6), trl("trl-large-nll")]
    return {
        "train": Comparison(
            "Supervised training", unit, [ours("llsflow"), ours("raw", 1.0), trl("trl-sft", 2.0)], rounds
        ),
        "packed": Comparison(
            "Supervised training, packed",
            unit,
            [ours("llsflow-packed"), ours("raw", 1.0), trl("trl-sft", 2.0), trl("trl-packed")],
            rounds,
        ),
        "dpo": Comparison(
            "Preference optimisation, with its reference",
            unit,
            [ours("llsflow-dpo"), ours("raw-dpo", 1.0), trl("trl-dpo", 2.0)],
            rounds,
        ),
        "large": Comparison("Supervised training with a vocabulary of 128,000 tokens", unit, large, rounds),
        "lora": Comparison(
            "Adapters, with a checkpoint every 50 steps and without",
            unit,
            [ours("llsflow-lora-saving"), ours("llsflow-lora", 0.98)],
            rounds,
            shares={"saving_share": "From a step's end to its checkpoint's, all together"},
        ),
    }


def _others(generate: Sequence[str | Path], unit: str, rounds: int) -> dict[str, Comparison]:
    own = Path(sys.executable).parent / "llsflow"
    imports = "import hydra, pydantic"
    return {
        "generate": Comparison(
            "Evaluation by generation",
            unit,
            [
                Contender("llsflow", [sys.executable, *generate, "llsflow"]),
                Contender("sorted-batch", [sys.executable, *generate, "sorted-batch"], target=1.1),
                Contender("lm-eval", [PEERS, *generate, "lm-eval"], target=1.3),
            ],
            rounds,
        ),
        "shared": Comparison(
            "Evaluation by generation, with a system prompt of 400 tokens",
            unit,
            [
                Contender("llsflow", [sys.executable, *generate, "llsflow", "--system", "400"]),
                Contender("lm-eval", [PEERS, *generate, "lm-eval", "--system", "400"], target=3.0),
            ],
            rounds,
        ),
        "endpoint": Comparison(
            "Evaluation of 2,000 rows at an instant OpenAI-compatible stub, 16 at once",
            "rows a second",
            [
                Contender("llsflow", [sys.executable, HERE / "endpoint.py", "llsflow"]),
                Contender("bare httpx client", [sys.executable, HERE / "endpoint.py", "httpx"], target=0.5),
                Contender("bare aiohttp client", [sys.executable, HERE / "endpoint.py", "aiohttp"]),
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


def section(program: str, *words: object) -> str:
    """Return what a program measures that starts servers of its own, and tells more than one rate."""
    command = [sys.executable, str(HERE / program), *map(str, words)]
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
    names = (*FIXTURE, "endpoint", "startup", "scoring", API, TURNS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--fixture", type=Path, help="where the fixture is kept; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fixture = options.fixture or Path(scratch, "fixture")
        if {*FIXTURE} & {*options.only}:
            ensure_peers()
            ensure_fixture(fixture, large="large" in options.only)
        environment = {"LLSFLOW_HOME": str(Path(scratch, "home")), "HF_HUB_OFFLINE": "1"}
        chosen = comparisons(options.only, fixture.absolute(), options.rounds, options.clock)
        for comparison in chosen.values():
            compare(comparison, environment)
        engine = section("engine.py", fixture, "--rounds", options.rounds) if ENGINE in options.only else ""
    api = section("api.py", "--rounds", options.rounds) if API in options.only else ""
    turns = section("turns.py", "--rounds", options.rounds) if TURNS in options.only else ""
    print(f"\nMeasured on {machine()}.\n")
    for name, comparison in chosen.items():
        print((startup_table if name == "startup" else table)(comparison) + "\n")
    print(engine + api + turns, end="")


if __name__ == "__main__":
    main()
