"""Listing, showing and copying configuration, and `conf://` URIs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llsflow.config import config_source, copy_config, list_options, load_experiment, packaged_conf, resolve_conf_uri
from llsflow.config.folders import option_exists
from llsflow.errors import ConfigError

Write = Callable[[str, str], Path]


def test_options_come_with_the_first_line_of_their_file(project: Path) -> None:
    options = {option.name: option for option in list_options()["recipe"]}
    assert options["sft_full"].description == "Supervised fine-tuning of every weight."
    assert options["sft_full"].file == packaged_conf() / "recipe" / "sft_full.yaml"


def test_the_users_options_stand_among_the_packaged_ones(write: Write) -> None:
    write("conf/recipe/mine.yaml", "# @package _global_\n\n#  Mine.  \nkind: sft\n")
    write("conf/recipe/sft_full.yaml", "kind: sft\n")
    write("conf/agent/a.yaml", "x: 1\n")
    listing = list_options()
    found = {option.name: option.description for option in listing["recipe"]}
    assert (found["mine"], found["sft_full"]) == ("Mine.", "")
    assert {"sft_lora", "dpo_full"} <= set(found)
    assert [o.name for o in listing["agent"]] == ["a", "assistant", "calculator"]


def test_folders_without_yaml_are_no_groups(project: Path) -> None:
    assert "dataset/iso_dates" not in list_options()


def test_a_config_is_shown_as_it_is(write: Write) -> None:
    path, text = config_source("recipe/sft_full")
    assert path == packaged_conf() / "recipe" / "sft_full.yaml"
    assert text == path.read_text("utf-8")
    mine = write("conf/recipe/sft_full.yaml", "kind: sft\n")
    assert config_source("recipe/sft_full") == (mine, "kind: sft\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recipe/sft_ful", "no recipe 'sft_ful'; did you mean 'sft_full'?"),
        ("recip/sft_full", "did you mean 'recipe/sft_full'?"),
        ("quickstart", "did you mean 'experiment/quickstart'?"),
        ("../pyproject", "write group/option"),
        ("/etc/passwd", "write group/option"),
    ],
)
def test_what_is_not_there_cannot_be_shown_or_copied(project: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match="^" + name) as shown:
        config_source(name)
    assert words in str(shown.value)
    with pytest.raises(ConfigError):
        copy_config(name, project / "conf")
    assert not (project / "conf").exists()


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "x/" * 3000 + "x", "a\0b", "\ud800"])
def test_a_name_that_no_disk_could_have_is_not_there(project: Path, name: str) -> None:
    assert not option_exists("dataset", name)
    with pytest.raises(ConfigError):
        config_source(f"dataset/{name}")


def test_a_copy_is_the_users_own_and_is_never_overwritten(project: Path) -> None:
    path = copy_config("experiment/quickstart", project / "conf")
    assert path == project / "conf" / "experiment" / "quickstart.yaml"
    assert path.read_bytes() == (packaged_conf() / "experiment" / "quickstart.yaml").read_bytes()
    path.write_text("defaults: [eval]\nseed: 5\n", "utf-8")
    with pytest.raises(ConfigError, match=r"conf/experiment/quickstart\.yaml: is there already"):
        copy_config("experiment/quickstart", project / "conf")
    assert load_experiment("quickstart", ["model.path=m"]).experiment.seed == 5


def test_conf_uris_name_files_beside_the_configuration(write: Write) -> None:
    packaged = resolve_conf_uri("conf://experiment/quickstart.yaml")
    assert packaged == packaged_conf() / "experiment" / "quickstart.yaml"
    mine = write("conf/experiment/quickstart.yaml", "seed: 1\n")
    assert resolve_conf_uri("conf://experiment/quickstart.yaml") == mine
    other = write("other/data.csv", "question,answer\n")
    assert resolve_conf_uri("conf://data.csv", other.parent) == other


@pytest.mark.parametrize(
    "uri", ["conf://../pyproject.toml", "conf:///etc/passwd", "conf://a/../../../x", "conf://link"]
)
def test_conf_uris_do_not_leave_the_folder(write: Write, project: Path, uri: str) -> None:
    write("conf/trainer/a.yaml", "")
    secret = write("secret.txt", "x")
    (project / "conf" / "link").symlink_to(secret)
    with pytest.raises(ConfigError, match="leaves the conf folder"):
        resolve_conf_uri(uri)


def test_a_conf_uri_of_nothing(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"conf://dataset/nothing\.csv: no such file; looked in"):
        resolve_conf_uri("conf://dataset/nothing.csv")
