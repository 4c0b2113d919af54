"""Which source files decide what a step makes: the modules that its own module imports, and those they import.

The closure is read from the sources, without importing anything, so that a plan stays quick. Comments, docstrings and
blank lines decide nothing and are left out of the digest, and so are the modules of `IGNORED`.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from llsflow import home

PACKAGE = Path(__file__).parent.parent
NAME = PACKAGE.name

IGNORED: Mapping[str, str] = {
    "llsflow.errors": "sentences about what went wrong",
    "llsflow.home": "folders, locks and files that are written whole",
    "llsflow.garbage": "when Python collects garbage",
    "llsflow.config": "how YAML and overrides are read: the settings that come of it are in the key",
    "llsflow.tracking": "what is sent to MLflow",
    "llsflow.store": "how rows are kept: the digest of the rows is in the key",
    "llsflow.steps": "the table of the steps",
    "llsflow.steps.code": "this digest",
    "llsflow.steps.context": "progress, and what a step is told of its run",
    "llsflow.steps.results": "where results lie",
    "llsflow.schema.plan": "the plan's own records",
    "llsflow.schema.docstrings": "descriptions of fields",
    "llsflow.schema.kinds": "sentences about wrong fields",
    "llsflow.data.problems": "sentences about wrong rows",
}
"""Modules and packages that cannot change a result, and why; with a package go its modules, `llsflow.steps` apart."""

_ALONE = ("llsflow.steps",)
"""Packages of which only `__init__` is meant."""

BY_NAME = ("llsflow.tools", "llsflow.shields")
"""Packages that import their modules by names in a table."""

_TOLD = "llsflow.tools."
"""Modules whose docstrings are what a model is told of their tools."""

_VERSION = "2"
"""Of how sources are read: what an earlier one remembered is not used."""

_MODULE = re.compile(r"llsflow(?:\.\w+)+")

Read = Callable[[Path], bytes]
"""Path -> its content."""

_TEXT = re.compile(
    rb"""(?P<text>(?:[rRbBfFuU]{0,2})(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''"""
    rb"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|(?P<comment>\#[^\n]*)""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Module:
    """One source file, as far as a key is concerned."""

    digest: str
    """sha256 (hex) of its statements."""
    imports: tuple[str, ...]
    """Modules of this package that it may import when it runs."""


def ignored(module: str) -> bool:
    """Return whether a module cannot change a result."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(name in IGNORED and (name == module or name not in _ALONE) for name in names)


@dataclass
class Sources:
    """The package's source files."""

    read: Read = Path.read_bytes
    memo: dict[str, Module] = field(default_factory=dict)
    """What is known of contents, by their sha256."""
    modules: dict[str, Module] = field(default_factory=dict)

    def closure(self, module: str, without: Collection[str] = ()) -> dict[str, str]:
        """Return the digest of each module that decides what this one does, by name; those `without` are left out."""
        found: dict[str, str] = {}
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name in found or name in without or ignored(name):
                continue
            known = self.module(name)
            found[name] = known.digest
            waiting += known.imports
        return found

    def module(self, name: str) -> Module:
        """Return a module of the package."""
        if name not in self.modules:
            path = file_of(name)
            assert path is not None  # noqa: S101 - only modules that are there are named by `_imports`
            content = self.read(path)
            key = hashlib.sha256(f"{_VERSION} {name}".encode() + b"\0" + content).hexdigest()
            if key not in self.memo:
                decides = statements(content, docstrings=name.startswith(_TOLD))
                self.memo[key] = Module(hashlib.sha256(decides).hexdigest(), _imports(name, content))
            self.modules[name] = self.memo[key]
        return self.modules[name]


@cache
def file_of(module: str) -> Path | None:
    """Return the source file of a module of the package; None: there is no such module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    file = path.with_suffix(".py")
    return file if file.is_file() else None


def statements(content: bytes, *, docstrings: bool = False) -> bytes:
    """Return a source without comments, docstrings and blank lines: what is left decides what it does.

    `docstrings`: they stay.
    """
    left_out, texts = [] if docstrings else _docstrings(content), list[bytes]()

    def kept(found: re.Match[bytes]) -> bytes:
        if found["text"] is None or any(start <= found.start() < end for start, end in left_out):
            return b""
        texts.append(found["text"])  # as it is, with its own blank lines and spaces
        return b"\0"

    lines = [line.rstrip() for line in _TEXT.sub(kept, content).split(b"\n")]
    parts = b"\n".join(line for line in lines if line).split(b"\0")
    return b"".join(part for pair in zip(parts, [*texts, b""], strict=True) for part in pair)


def _docstrings(content: bytes) -> list[tuple[int, int]]:
    """Return where the texts are that are statements of their own: their first byte, and the byte behind them."""
    starts = [0, *(found.end() for found in re.finditer(b"\n", content))]
    return [
        (starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset)
        for node in ast.walk(ast.parse(content))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if node.end_lineno is not None and node.end_col_offset is not None
    ]


def _imports(module: str, content: bytes) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in (*_named(ast.parse(content), module), *_by_name(module)):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            part = ".".join(parts[:count])
            if file_of(part) is not None:
                found[part] = None
    found.pop(module, None)
    return tuple(found)


def _by_name(module: str) -> Iterator[str]:
    """Yield the modules of a package that imports them by names in a table."""
    if module in BY_NAME:
        folder = PACKAGE.parent.joinpath(*module.split("."))
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _named(tree: ast.AST, module: str) -> Iterator[str]:
    """Yield the names that a source imports from this package, those for type checkers alone left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _for_types(node.test):
            for other in node.orelse:
                yield from _named(other, module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == NAME)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module} has a relative import, which this digest does not follow")
            if node.module and node.module.split(".")[0] == NAME:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant):
            # a module that is started as a program, or imported by its name
            if isinstance(node.value, str) and _MODULE.fullmatch(node.value):
                yield node.value
        else:
            yield from _named(node, module)


def _for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def digest_of(closure: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of a closure."""
    return hashlib.sha256("".join(f"{name} {found}\n" for name, found in sorted(closure.items())).encode()).hexdigest()


@cache
def closure_of(module: str, without: tuple[str, ...] = ()) -> Mapping[str, str]:
    """Return the digest of each module that decides what a module of the installed package does."""
    sources = _sources()
    known = len(sources.memo)
    found = sources.closure(module, without)
    if len(sources.memo) > known:
        _remember(sources)
    return found


@cache
def digest_alone(*modules: str) -> str:
    """Return the sha256 (hex) of some modules of the installed package, without those that they import."""
    sources = _sources()
    return digest_of({module: sources.module(module).digest for module in modules})


@cache
def _sources() -> Sources:
    kept = home.read_json(_memo())
    try:
        return Sources(memo={key: Module(found[0], tuple(found[1])) for key, found in (kept or {}).items()})
    except (TypeError, AttributeError, IndexError, KeyError):
        return Sources()


def _memo() -> Path:
    return home.home() / "cache" / "code.json"


def _remember(sources: Sources) -> None:
    """Keep what was read of the sources; a home that cannot be written does without."""
    with home.storage_errors(home.home()):
        home.write_json(_memo(), {key: [found.digest, found.imports] for key, found in sources.memo.items()})
