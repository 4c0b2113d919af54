"""Reading one YAML file: values as OmegaConf reads them, and the line and column of every key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llsflow.config.folders import shown
from llsflow.config.report import Place, Report
from llsflow.schema.experiment import Loc

TAG = "tag:yaml.org,2002:"
SCALARS = {TAG + name for name in ("str", "int", "float", "bool", "null")}
MOST_REPEATED = 10_000
"""Values that aliases repeat in one file: more than anyone writes, fewer than fill the memory."""
PACKAGE_HEADER = re.compile(r"^#\s*@package\s+(\S+)\s*$")


@dataclass
class Document:
    """A YAML file, read."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Loc, Place] = field(default_factory=dict)
    package: str | None = None
    """`# @package …` of the header; an experiment's is _global_ without saying so."""
    broken: bool = False
    """The file could not be read: it counts as empty."""

    def place(self, loc: Loc) -> Place:
        """Return where a key of this file stands; the file's start where it has no such key."""
        return self.places.get(loc) or Place(shown(self.path), 1, 1)


def read_document(path: Path, report: Report) -> Document:
    """Read a YAML file, and note its syntax errors, duplicate keys and unusable keys or tags."""
    document = Document(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        report.add(Place(shown(path), line, column), "not UTF-8 text: save the file as UTF-8")
        document.broken = True
        return document
    document.package = _package(text)
    try:
        _Reader(document, report).read(text)
    except yaml.YAMLError as error:
        _syntax_mistake(error, document, text, report)
        document.values, document.places, document.broken = {}, {}, True
    return document


def _package(text: str) -> str | None:
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            return None
        if match := PACKAGE_HEADER.match(line):
            return match.group(1)
    return None


def omegaconf_loader() -> Any:
    """Return OmegaConf's YAML loader class: floats like 1e-4, no dates, duplicate keys refused."""
    # its home moved between 2.3 and 2.4; this module imports it in both
    from omegaconf.basecontainer import get_yaml_loader  # type: ignore[attr-defined]

    return get_yaml_loader()


class _Reader:
    """Walks the node tree of one file beside its values."""

    def __init__(self, document: Document, report: Report) -> None:
        self.document = document
        self.report = report
        self.open_nodes: list[yaml.Node] = []
        self.seen: set[int] = set()
        self.repeated = 0

    def read(self, text: str) -> None:
        self.loader = omegaconf_loader()(text)
        try:
            root = self.loader.get_single_node()
            if root is None:
                return
            if not isinstance(root, yaml.MappingNode):
                self.report.add(self.place(root), "found no mapping: write key: value lines")
                self.document.broken = True
                return
            self.walk(root, ())
            self.document.values = self.loader.construct_document(root)
        finally:
            self.loader.dispose()

    def place(self, node: yaml.Node, plain: str | None = None) -> Place:
        mark = node.start_mark
        return Place(shown(self.document.path), mark.line + 1, mark.column + 1, plain)

    def walk(self, node: yaml.Node, loc: Loc) -> None:
        self.repeated += id(node) in self.seen
        self.seen.add(id(node))
        if self.repeated > MOST_REPEATED:
            raise yaml.MarkedYAMLError(problem="anchors multiply without end", problem_mark=node.start_mark)
        if any(node is other for other in self.open_nodes):
            raise yaml.MarkedYAMLError(problem="an anchor contains itself", problem_mark=node.start_mark)
        self.open_nodes.append(node)
        if isinstance(node, yaml.MappingNode) and self.known_tag(node, {TAG + "map"}):
            self.mapping(node, loc)
        elif isinstance(node, yaml.SequenceNode) and self.known_tag(node, {TAG + "seq"}):
            for index, item in enumerate(node.value):
                self.document.places[(*loc, index)] = self.place(item, _plain(item))
                self.walk(item, (*loc, index))
        elif isinstance(node, yaml.ScalarNode):
            self.known_tag(node, SCALARS)
        self.open_nodes.pop()

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> None:
        first: dict[str, yaml.Node] = {}
        kept = []
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in first and key.tag != TAG + "merge":
                line = first[name].start_mark.line + 1
                self.report.add(self.place(key), f"duplicate key {name!r}: it stands in line {line} already")
                continue
            if key.tag not in (TAG + "str", TAG + "int", TAG + "merge", TAG + "value"):
                self.report.add(self.place(key), f"key {name!r} is not read as text: write it in quotes")
                continue
            first[name] = key
            kept.append((key, value))
        node.value = kept
        self.loader.flatten_mapping(node)
        # what `<<` brought in comes first: the mapping's own keys win
        node.value = list({key.value: (key, value) for key, value in node.value}.values())
        for key, value in node.value:
            name = self.loader.construct_object(key, deep=True)
            self.document.places[(*loc, name)] = self.place(key, _plain(value))
            self.walk(value, (*loc, name))

    def known_tag(self, node: yaml.Node, allowed: set[str]) -> bool:
        if node.tag in allowed:
            return True
        message = f"tag {node.tag.replace(TAG, '!!')} is not available: remove it"
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)
        self.report.add(self.place(node), message)
        node.tag, node.value = TAG + "null", "null"
        return False


def _plain(node: yaml.Node) -> str | None:
    unquoted = isinstance(node, yaml.ScalarNode) and not node.style and node.tag != TAG + "str"
    return node.value if unquoted else None


PLAIN_WORDS = {
    "mapping values are not allowed here": "a second ': ' in this line, or a wrong indent: quote the value",
    "found character '\\t' that cannot start any token": "a tab: indent with spaces",
    # the same in the words of the C parser, which OmegaConf 2.4 takes where it can
    "mapping values are not allowed in this context": "a second ': ' in this line, or a wrong indent: quote the value",
    "found character that cannot start any token": "a tab (indent with spaces), or @ or ` unquoted",
    "did not find expected key": "this line is indented differently from its siblings",
    "found character '@' that cannot start any token": "a value cannot begin with @: quote it",
    "found character '`' that cannot start any token": "a value cannot begin with `: quote it",
    "but found another document": "a second document begins here: one file holds one",
    "could not find expected ':'": "a key without ':'",
    "expected <block end>, but found '<block mapping start>'": "this line is indented differently from its siblings",
    "expected <block end>, but found '<block sequence start>'": "this line is indented differently from its siblings",
    "expected <block end>, but found '-'": "a list item where a key was expected: check the indent",
    "expected <block end>, but found '<scalar>'": "text after the end of a value: quote the whole value",
}


def _syntax_mistake(error: yaml.YAMLError, document: Document, text: str, report: Report) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is None:
        before = text[: getattr(error, "position", 0)]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    else:
        line, column = mark.line + 1, mark.column + 1
    words = PLAIN_WORDS.get(problem, problem)
    report.add(Place(shown(document.path), line, column), f"not YAML: {words}")
