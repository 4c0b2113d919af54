"""The README's tree: every module with the first line of its docstring.

`python tests/house/tree.py` writes it into README.md.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- tree: `python tests/house/tree.py` writes it, a test keeps it true -->\n", "<!-- /tree -->\n"

TOP = {
    "conf/": "what to run: words only, never code paths",
    "docs/": "data, models, scoring, configuration, training, runs, server, agents; sessions with the official client",
    "tests/": "mirrors llsflow/ name for name; house/ holds the rules of this page, bench/ the measurements",
    "outputs/": "run state, not in git; LLSFLOW_HOME moves it",
}


def tree() -> str:
    """Return the block, fenced."""
    lines = [f"{name:<24} {text}" for name, text in TOP.items()]
    for package in ("llsflow", "flows"):
        lines.append("")
        lines += [_line(path) for path in sorted((ROOT / package).rglob("*.py"), key=_order)]
    return "```\n" + "\n".join(lines) + "\n```\n"


def _order(path: Path) -> tuple[str, bool, str]:
    return (path.parent.as_posix(), path.name != "__init__.py", path.name)


def _line(path: Path) -> str:
    first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]
    place = path.relative_to(ROOT)
    if path.name == "__init__.py":
        return f"{place.parent.as_posix() + '/':<24} {first}"
    return f"{'  ' * (len(place.parts) - 1) + path.name:<24} {first}"


def write() -> None:
    """Put the block into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(before + BEGIN + tree() + END + after, "utf-8")


if __name__ == "__main__":
    write()
