"""The README and docs/ are true: the tree is the disk, every command works, every link leads somewhere."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from llsflow.cli import main
from llsflow.config import load_deployments, load_server
from tests.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def commands() -> list[tuple[str, str]]:
    """Return (page, command) for every line of a fenced sh block that begins with llsflow."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            found += [(page.name, line) for line in block.splitlines() if line.startswith("llsflow ")]
    return sorted(set(found))


def test_the_tree_is_the_disk() -> None:
    spec = importlib.util.spec_from_file_location("tree", Path(__file__).with_name("tree.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.tree() in (ROOT / "README.md").read_text("utf-8"), "run: python tests/house/tree.py"


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_documented_command(
    page: str,
    command: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Commands that would train are planned instead, those that would serve are read; the rest is run."""
    words = shlex.split(command, comments=True)[1:]
    if words[0] == "serve":  # tests/cli/test_serve.py starts it
        load_server(words[1:])
        return
    if words[0] == "deploy":  # tests/flows/test_deployments.py needs a server for it
        assert load_deployments()
        return
    monkeypatch.chdir(tmp_path)
    for folder in ("some-hf-folder", "FOLDER", "NEW_FOLDER", "OLD_FOLDER"):
        shutil.copytree(tiny_folder, tmp_path / folder)
    rows = [{"prompt": f"question {number}", "completion": "answer"} for number in range(40)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # nothing is said in a chat
    if words[0] == "ui":
        words = ["ui", "--stop"]
    if words[0] == "run" and "--cfg" not in words:
        words[0] = "plan"
    if "--config" in words:
        main(["plan", "quickstart", "--cfg", "job"])
        stored = Path(words[words.index("--config") + 1])
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(capsys.readouterr().out)
    assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_every_make_target_is_in_the_readme() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "test-services" in targets
    assert [target for target in targets if f"`make {target}`" not in readme] == ["clean"]


def test_every_make_command_of_a_page_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert "slow" in named
    assert named <= targets


def test_the_layers_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    assert "```\n" + "\n".join(contracts[0]["layers"]) + "\n```\n" in (ROOT / "README.md").read_text("utf-8")


def test_the_table_of_templates_names_those_that_are_proved() -> None:
    table = (ROOT / "docs" / "data.md").read_text("utf-8").partition("### Templates that are proved")[2]
    rows = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("| `")]
    named = [
        (name.strip(" `"), tools.strip() == "yes", reasoning.strip() == "yes") for name, _, tools, reasoning in rows
    ]
    assert named == [(one.name, one.tools, one.reasoning) for one in TEMPLATES]
