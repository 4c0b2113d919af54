"""What a step's key covers: every module that decides its result, and nothing that does not."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from llsflow.config import load_experiment
from llsflow.steps import AGENTS, STEPS
from llsflow.steps.code import IGNORED, Module, Sources, closure_of, digest_of, file_of, ignored, statements
from tests.conftest import small_quickstart
from tests.steps import one_step
from tests.steps.test_pipeline import Log, run

ROOTS = {kind: (known.module, known.without) for kind, known in STEPS.items()}
ROOTS |= {"agents": (AGENTS, ()), "answers": ("llsflow.steps.answers", (AGENTS,))}


@cache
def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture(scope="module")
def known() -> Mapping[str, Module]:
    """What is known of all contents, so that each is read once."""
    sources = Sources(content)
    for module, without in ROOTS.values():
        sources.closure(module, without)
    return dict(sources.memo)


def digest(kind: str, known: Mapping[str, Module], changed: Path | None = None, more: bytes = b"") -> str:
    """Return the key's part for a kind, with more at the end of one file."""

    def read(path: Path) -> bytes:
        return content(path) + (more if path == changed else b"")

    return digest_of(Sources(read, dict(known)).closure(*ROOTS[kind]))


@pytest.mark.parametrize("kind", ROOTS)
def test_a_change_in_any_module_of_the_closure_changes_the_key(kind: str, known: Mapping[str, Module]) -> None:
    before = digest(kind, known)
    for name in closure_of(*ROOTS[kind]):
        file = file_of(name)
        assert digest(kind, known, file, b"\nCHANGED = 1\n") != before, name
        if not name.startswith("llsflow.tools."):
            assert digest(kind, known, file, b'\n# a comment\n"""A text."""\n\n') == before, name


def test_what_decides_is_covered_and_what_does_not_is_not() -> None:
    def covers(kind: str, *modules: str) -> list[bool]:
        return [f"llsflow.{module}" in closure_of(*ROOTS[kind]) for module in modules]

    assert covers("train", "models.attention", "training.loop", "losses.supervised", "models.load") == [True] * 4
    assert covers("prepare", "data.learned", "data.pairs", "data.template", "models.load") == [True] * 4
    assert covers("evaluate", "data.pairs", "scorers.equality", "models.decode", "models.remote") == [True] * 4
    assert covers("answers", "models.decode", "models.remote", "data.template") == [True] * 3
    assert covers("answers", "scorers.equality", "scorers", "evals", "agents.turn") == [False] * 4
    assert covers("evaluate", "agents.turn", "tools.sandbox", "training.loop") == [False] * 3
    assert covers("evaluate", "scorers.symbolic") == [True], "it is started as a program"
    assert covers("train", "training.other_device") == [True], "it is started as a program"
    assert covers("agents", "agents.turn", "tools.calculator", "shields.patterns", "models.engine") == [True] * 4
    assert covers("train", "data.hub", "scorers", "api.app", "cli.run") == [False] * 4


def test_docstrings_of_tools_are_what_a_model_is_told(known: Mapping[str, Module]) -> None:
    file = file_of("llsflow.tools.calculator")
    assert digest("agents", known, file, b'\n"""Another text."""\n') != digest("agents", known)
    assert digest("agents", known, file, b"\n# a comment\n") == digest("agents", known)


def test_everything_that_is_left_out_is_there_and_has_a_reason() -> None:
    assert all(file_of(name) for name in IGNORED)
    assert all(IGNORED.values())
    assert ignored("llsflow.tracking.run")
    assert not ignored("llsflow.steps.train")


def test_statements_are_what_is_left_without_comments_docstrings_and_blank_lines() -> None:
    docstring = b'    """A docstring,\n    on two lines."""\n'
    source = b'"""A module."""\n\nA = "# no comment"  # a comment\n\n\ndef f():\n' + docstring + b"    return A\n"
    assert statements(source) == b'A = "# no comment"\ndef f():\n    return A'
    assert statements(b"A = '''a\n# text\n\nb'''") != statements(b"A = '''a\n\nb'''")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A = '''a\n\nb'''", "A = '''a\nb'''"),
        ("A = '''a  \nb'''", "A = '''a\nb'''"),
        ('"""d"""; A = 1', '"""d"""; A = 2'),
        ('def f(x=1): "d"', 'def f(x=2): "d"'),
        ('A = "ü"; """d"""; B = 1', 'A = "ü"; """d"""; B = 2'),
    ],
)
def test_statements_tell_apart_what_does_other_things(one: str, other: str) -> None:
    assert statements(one.encode()) != statements(other.encode())


def reached(module: str) -> set[str]:
    """Return all that a module imports, whether it decides a result or not."""
    sources, found, waiting = Sources(), set[str](), [module]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += sources.module(name).imports
    return found


def test_every_module_that_a_step_loads_is_in_its_closure_or_left_out(llsflow_home: Path, tmp_path: Path) -> None:
    """Imports by a name, of a table or a string, escape the sources: here each kind runs in a process of its own."""
    plan, done = run(load_experiment("quickstart", small_quickstart(tmp_path)), Log())
    (tmp_path / "done.pickle").write_bytes(pickle.dumps((plan, done)))
    shutil.rmtree(llsflow_home / "generations")  # the answers are made again
    program = [sys.executable, str(Path(one_step.__file__)), str(tmp_path / "done.pickle")]
    # what the program itself needs, and the configuration in the plan that it is given
    opening = reached("llsflow.steps.opening") | reached("llsflow.config")
    for kind in sorted({step.kind for step in plan.steps}):
        ended = subprocess.run([*program, kind], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert ended.returncode == 0, ended.stderr
        loaded = json.loads(ended.stdout.splitlines()[-1])
        covered = {*closure_of(*ROOTS[kind]), *opening}
        assert [name for name in loaded if name not in covered and not ignored(name)] == [], kind
