"""Commands that run nothing: what they print, and how they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llsflow import home
from llsflow.cli import main


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    for command in ("run", "plan", "check", "preview", "ls", "show", "cp", "schema", "ui", "stop"):
        assert f"\n    {command} " in told
    assert "llsflow run quickstart" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ls"], "experiment  calculator, date_preferences, date_styles, eval, quickstart, rerank, sft"),
        (["ls", "experiment"], "quickstart        Teach a tiny Llama"),
        (["show", "recipe/sft_full"], "kind: sft"),
        (["run", "quickstart", "--cfg", "job"], "model_type: llama"),
        (["plan", "quickstart"], "8 steps to run; about"),
        (["check", "quickstart"], "quickstart: no mistakes; 8 steps, 20,000 training rows"),
        (["schema"], '"training_config"'),
        (["schema", "recipe"], '"training_config"'),
        (["completion", "bash"], "complete -F _llsflow llsflow"),
        (["complete", "--", "run", "qui"], "quickstart"),
        (["complete", "--", "run", "quickstart", "benchm"], "benchmark"),
        (["complete", "--", "sh"], "show"),
        (["complete", "--", "show", "model/t"], "model/tiny_llama"),
        (["stop"], "nothing runs in the background"),
    ],
)
def test_commands(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert expected in capsys.readouterr().out


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    assert json.loads(capsys.readouterr().out)["properties"]["recipe"]


def test_cp_then_change_then_it_stands_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cp", "recipe/sft_full"]) == 0
    mine = tmp_path / "conf" / "recipe" / "sft_full.yaml"
    mine.write_text(mine.read_text().replace("lr_schedule: cosine", "lr_schedule: linear"))
    assert main(["run", "quickstart", "--cfg", "job"]) == 0
    told = capsys.readouterr()
    assert "lr_schedule: linear" in told.out
    assert "shadows the packaged one" in told.err
    assert main(["cp", "recipe/sft_full"]) != 0
    assert main(["cp", "recipe/sft_ful", "elsewhere"]) != 0
    assert "sft_full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plan", "quickstrat"], "quickstart"),
        (["plan", "quickstart", "recipe.lr_schedul=linear"], "lr_schedule"),
        (
            ["plan", "quickstart", "recipe.training_config.n_epochs=0"],
            "command line: recipe.training_config.n_epochs=0",
        ),
        (["plan", "quickstart", "recipe.lr_schedule=linear,cosine"], "sweep"),
        (["plan"], "quickstart"),
        (["ls", "recipes"], "groups are"),
        (["show", "recipe/none_such"], "sft_full"),
    ],
)
def test_wrong_words_exit_2_with_the_way_out(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told


def test_an_unknown_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "quickstart", "-m", "seed=1,2"])
    assert caught.value.code == 2
    assert "sweeps are not available" in capsys.readouterr().err


def test_a_home_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path / "file" / "home"))
    assert main(["run", "quickstart"]) == 1
    assert "set LLSFLOW_HOME to a folder that can be written" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody can write to")
def test_a_read_only_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", "/sys/kernel/llsflow")
    assert main(["run", "quickstart"]) == 1
    assert "it is read-only for this user: change its permissions, or set LLSFLOW_HOME" in capsys.readouterr().err


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/full refuses every write with ENOSPC: the probe file is put there by a link."""
    home = tmp_path / "full"
    home.mkdir()
    import os

    (home / f".probe-{os.getpid()}").symlink_to("/dev/full")
    monkeypatch.setenv("LLSFLOW_HOME", str(home))
    assert main(["run", "quickstart"]) == 1
    assert "the disk is full: free some space" in capsys.readouterr().err


def test_our_own_fault_keeps_its_traceback_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], llsflow_home: Path
) -> None:
    import llsflow.cli.check

    def broken(options: object) -> int:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(llsflow.cli.check, "command", broken)
    assert main(["check", "quickstart"]) == 70
    assert "Traceback" not in capsys.readouterr().err
    assert "RuntimeError: a fault of ours" in (llsflow_home / "logs" / "llsflow.log").read_text()


HEAVY = ("torch", "transformers", "lightning", "mlflow", "prefect", "pandas", "matplotlib", "pyarrow", "sympy", "scipy")


@pytest.mark.parametrize("words", [["ls"], ["plan", "quickstart"], ["check", "quickstart"], ["schema"], ["--help"]])
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys\nfrom llsflow.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as done:\n    code = done.code\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_what_serve_keeps_up_is_not_ended_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    home.write_json(home.home() / "serve.json", {"url": "http://127.0.0.1:8321", "pid": 12})
    with home.alone("serve"):
        for words in (["stop"], ["ui", "--stop"]):
            assert main(words) == 1
            assert "`llsflow serve` keeps these up (process 12, http://127.0.0.1:8321)" in capsys.readouterr().err
    assert main(["stop"]) == 0
