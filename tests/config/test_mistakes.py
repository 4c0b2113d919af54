"""Every mistake in one report: its place, what was found, what is allowed, the nearest right name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from llsflow.config import load_experiment
from llsflow.errors import ConfigError

Write = Callable[[str, str], Path]
Mistakes = Callable[..., list[str]]
RECIPE = """
    kind: sft
    training_config:
      n_epochs: many
      max_steps_per_epoch: 0
      data_config:
        dataset_id: ${datset.dataset_id}
        batch_size: 8
        shufle: true
        data_format: instuct
      optimizer_config:
        optimizer_type: adamw
        lr: 99
        weight_decay: 0.01
        num_warmup_steps: 20
    """
OWN = ("dataset.uri=my.jsonl", "model.path=./m")


def located(lines: list[str]) -> list[str]:
    """Return the places of a report's lines without their folders: `recipe.yaml:3:1`."""
    return [line.split(": ")[0].rpartition("/")[2] for line in lines]


def test_five_mistakes_in_one_file_and_one_on_the_command_line(write: Write, mistakes: Mistakes) -> None:
    write("conf/recipe/bad.yaml", RECIPE)
    lines = mistakes("sft", *OWN, "recipe=bad", "recipe.overlong=trunkate")
    assert located(lines) == [
        "bad.yaml:3:3",
        "bad.yaml:6:5",
        "bad.yaml:8:5",
        "bad.yaml:9:5",
        "bad.yaml:12:5",
        "command line",
    ]
    assert "n_epochs: found 'many', allowed: an integer of at least 1" in lines[0]
    assert "refers to 'datset.dataset_id', which is not there; did you mean 'dataset.dataset_id'?" in lines[1]
    assert "unknown key; did you mean recipe.training_config.data_config.shuffle?" in lines[2]
    assert "found 'instuct', allowed: one of instruct, dialog; did you mean 'instruct'?" in lines[3]
    assert "found 99, allowed: a number above 0 and at most 10" in lines[4]
    assert lines[5] == (
        "command line: recipe.overlong=trunkate: found 'trunkate', allowed: one of refuse, truncate, drop; "
        "did you mean 'truncate'?"
    )
    assert all(line.startswith("conf/recipe/bad.yaml:") for line in lines[:5])


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("kind: sft\nx: a: b\n", "2:5", "a second ': ' in this line"),
        ("kind: sft\n\tx: 1\n", "2:1", "indent with spaces"),
        ("kind: sft\n  x: 1\n", "2:4", "wrong indent"),
        ("a:\n  b: 1\n c: 2\n", "3:2", "indent"),
        ("kind: [1, 2\n", "2:1", "not YAML"),
        ("kind: 'sft\n", "2:1", "not YAML"),
        ("kind: sft\n---\nkind: sft\n", "2:1", "one file holds one"),
        ("- a\n", "1:1", "found no mapping"),
        ("kind: !!set {a}\n", "1:7", "tag !!set is not available"),
        ("kind: !!binary aGk=\n", "1:7", "tag !!binary is not available"),
        ("kind: !!python/object/apply:os.getcwd []\n", "1:7", "is not available"),
        ("kind: &a [*a]\n", "1:7", "an anchor contains itself"),
        ("kind: *b\n", "1:7", "undefined alias"),
        ("kind: \x01\n", "1:7", "not YAML"),
        ("on: 1\n", "1:1", "key 'on' is not read as text: write it in quotes"),
    ],
)
def test_a_file_that_is_no_yaml(write: Write, mistakes: Mistakes, text: str, place: str, words: str) -> None:
    write("conf/recipe/bad.yaml", "").write_text(text, "utf-8")
    lines = mistakes("sft", *OWN, "recipe=bad", "sed=1")
    (line,) = [line for line in lines if line.startswith(f"conf/recipe/bad.yaml:{place}: ") and words in line]
    assert lines[-1].startswith("command line: sed=1: unknown key; did you mean seed")
    # what is not there because the file is unreadable is not told as a mistake of its own
    if "not YAML" in line:
        assert len(lines) == 2


def test_a_file_that_is_not_utf8(write: Write, mistakes: Mistakes) -> None:
    write("conf/recipe/bad.yaml", "").write_bytes(b"kind: sft\n# caf\xe9\n")
    assert mistakes("sft", *OWN, "recipe=bad") == ["conf/recipe/bad.yaml:2:6: not UTF-8 text: save the file as UTF-8"]


def test_every_duplicate_key_is_told(write: Write, mistakes: Mistakes) -> None:
    write("conf/trainer/bad.yaml", "accelerator: cpu\ndevices: 1\naccelerator: cpu\ndevices: 1\n")
    lines = mistakes("quickstart", "trainer=bad")
    assert lines == [
        "conf/trainer/bad.yaml:3:1: duplicate key 'accelerator': it stands in line 1 already",
        "conf/trainer/bad.yaml:4:1: duplicate key 'devices': it stands in line 2 already",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recipe=sft_ful", "no recipe 'sft_ful'; did you mean 'sft_full'? Known: dpo_full, dpo_lora, sft_dora, "),
        ("recipe.lr=3", "did you mean recipe.training_config.optimizer_config.lr (/"),
        ("recipe.lr=3", "conf/experiment/quickstart.yaml:19:7)?"),
        ("recipe.trainig_config.n_epochs=1", "did you mean recipe.training_config.n_epochs ("),
        ("recip.kind=sft", "unknown key recip; did you mean recipe.kind ("),
        ("model.init.architecture.hiden_size=3", "did you mean model.init.architecture.hidden_size ("),
        ("model.init.architecture.hiden_size=3", "A new key is written +model.init.architecture.hiden_size=…"),
        ("recipe.chat_template_kwargs.enable_thinking=false", "no such key here; a new key is written +recipe.chat"),
        ("seed", "found no '=': write key=value"),
        (
            "+dataset.metadata.größe=5",
            "the key has 'öß', and keys here are of letters from a to z, digits, _ and -: put it",
        ),
        (
            "dataset=[iso_dates,arithmetic]",
            "2 options for one group, of which only one can be: choose one, dataset=iso",
        ),
        ("recipe=[sft_full,sft_lora]", "choose one, recipe=sft_full"),
        ("seed=1,2", "sweeps are not available"),
        ("seed=choice(1,2)", "sweeps are not available"),
        ("seed=range(1,3)", "sweeps are not available"),
        ("dataset.uri=a(1).jsonl", "quote special characters: \"dataset.uri='a(1).jsonl'\""),
        ("hydra.run.dir=x", "no effect here"),
        ("seed=true", "found true, allowed: an integer of at least 0"),
        ("seed='1'", "found '1', allowed: an integer"),
        ("seed=1.5", "found 1.5, allowed: an integer"),
        ("model.trust_remote_code=1", "found 1, allowed: true or false"),
        ("seed.x=1", "seed is a value (0): it has no keys"),
        ("+seed=1", "is there already"),
        ("~sed", "is not there to delete; did you mean seed"),
        ("~seed=9", "is 0, not 9: nothing deleted"),
        ("~benchmark=held_out", "no such choice to leave out"),
        ("benchmark.scoring_functions.4=x", "is a list of 1: its keys are 0 to 0"),
        ("recipe.kind=dpo", "dpo needs alignment_config"),
        ("+recipe.alignment_config.beta=0.1", "is for kind: dpo"),
        ("recipe.export=adapter", "adapter needs algorithm_config of type LoRA"),
        ("+recipe.export_checkpoint=best", "set training_config.data_config.validation_dataset_id (with"),
        ("seed=${nope}", "refers to 'nope', which is not there"),
        ("seed=${sed}", "did you mean 'seed'?"),
        ("description=${description}", "refers to itself"),
        ("description=${nope:3}", "cannot be resolved"),
        ("name=a/../b c", "allowed: a name of letters"),
        ("benchmark.dataset_id=iso_date_held_out", "did you mean 'iso_dates_held_out'?"),
        ("benchmark.dataset_id=../../x", "no dataset '../../x'"),
        (
            "benchmark.benchmark_config.eval_candidate.type=modl",
            "found 'modl', allowed: model, rerank, agent; did you mean",
        ),
        ("benchmark.benchmark_config.eval_candidate.sampling_params.strategy.type=3", "allowed: greedy, top_p, top_k"),
        ("benchmark.dataset_id=iso_dates:held_out", "holds no rows out"),
        ("benchmark.benchmark_config.eval_candidate.model.x=1", "is ${model.model_id} ("),
        ("experiment=eval", "the experiment is quickstart already"),
    ],
)
def test_one_mistake_on_the_command_line_gives_one_line(mistakes: Mistakes, override: str, words: str) -> None:
    (line,) = mistakes("quickstart", override)
    assert line.startswith(f"command line: {override}: ")
    assert words in line


def test_hydras_plus_is_no_advice_for_a_misspelt_key(mistakes: Mistakes) -> None:
    assert "+" not in mistakes("quickstart", "recipe.lora.rnk=3")[0]


def test_an_unknown_experiment_does_not_hide_the_rest(mistakes: Mistakes) -> None:
    assert mistakes("quikstart", "seed=x", "recipe=none_such", "a=1,2") == [
        "command line: quikstart: no experiment 'quikstart'; did you mean 'quickstart'? Known: calculator, "
        "date_preferences, date_styles, eval, quickstart, rerank, sft",
        "command line: seed=x: found 'x', allowed: an integer of at least 0 and at most 2147483647",
        "command line: recipe=none_such: no recipe 'none_such'. Known: dpo_full, dpo_lora, sft_dora, sft_full, "
        "sft_lora, sft_packed",
        'command line: a=1,2: several values for one key: sweeps are not available; for a list write "a=[1,2]", '
        "for a text \"a='1,2'\"",
    ]


def test_values_that_the_user_has_to_give_are_asked_for_at_their_place(mistakes: Mistakes) -> None:
    lines = mistakes("sft")
    assert located(lines) == ["own.yaml:4:1", "folder.yaml:3:1"]
    assert lines[0].endswith("dataset.uri: not set yet: give it a value with dataset.uri=VALUE")


@pytest.mark.parametrize("override", ["dataset.uri=a,b", "dataset.uri=a(1)", "dataset.uri=a:b(c"])
def test_a_value_that_was_given_wrongly_is_not_asked_for_again(mistakes: Mistakes, override: str) -> None:
    (line,) = mistakes("sft", "model.path=m", override)
    assert line.startswith(f"command line: {override}: ")


def test_what_refers_to_a_value_to_be_given_is_not_told_again(write: Write, mistakes: Mistakes) -> None:
    write("conf/dataset/bare.yaml", "dataset_id: ???\nuri: x.jsonl\n")
    lines = mistakes("sft", "dataset=bare", "model.path=m")
    assert located(lines) == ["bare.yaml:1:1"]


def test_keys_of_a_group_that_is_not_chosen(mistakes: Mistakes) -> None:
    (line,) = mistakes("sft", *OWN, "benchmark.batch_size=3")
    assert "this experiment has no benchmark: choose one first, benchmark=NAME (known: arithmetic, held_out, " in line


@pytest.mark.parametrize("override", ["+model._target_=os.system", "+model.init.architecture.a._target_=x"])
def test_code_from_the_command_line_is_refused(mistakes: Mistakes, override: str) -> None:
    (line,) = mistakes("quickstart", override)
    assert "configuration never names code" in line


def test_code_from_a_file_is_refused_at_any_depth(write: Write, mistakes: Mistakes) -> None:
    write(
        "conf/experiment/evil.yaml",
        """
        defaults: [quickstart]
        dataset:
          metadata: {list: [{_target_: os.system}]}
        """,
    )
    assert located(mistakes("evil")) == ["evil.yaml:3:22"]


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        ("defaults: [{override /recipe: sft_ful}]", "1:13", "no recipe 'sft_ful'; did you mean 'sft_full'?"),
        ("defaults: [{model: tiny_llama}]", "1:13", "write '- override /model: tiny_llama'"),
        ("defaults: [{/model: tiny_llama}]", "1:1", "Multiple values for model"),
        ("defaults: [{override model: tiny_llama}]", "1:1", "'- override /group: option'"),
        ("defaults: {model: tiny_llama}", "1:1", "must be a list (got mapping)"),
        ("defaults: [qickstart]", "1:12", "no experiment 'qickstart'; did you mean 'quickstart'?"),
        ("defaults: [3]", "1:1", "Unsupported type in defaults"),
    ],
)
def test_mistakes_in_a_defaults_list(write: Write, mistakes: Mistakes, body: str, place: str, words: str) -> None:
    write("conf/experiment/bad.yaml", body + "\n")
    lines = mistakes("bad", "seed=x")
    assert lines[0].startswith(f"conf/experiment/bad.yaml:{place}: ")
    assert words in lines[0]
    assert any(line.startswith("command line: seed=x: found 'x'") for line in lines[1:])
    assert len(lines) == (3 if "sft_ful" in body else 2)


@pytest.mark.parametrize("name", ["sft_full", "mine"])
def test_a_yml_file_that_is_meant_is_a_mistake(write: Write, mistakes: Mistakes, name: str) -> None:
    write(f"conf/recipe/{name}.yml", "kind: sft\n")
    (line,) = mistakes("quickstart", f"recipe={name}")
    assert f"conf/recipe/{name}.yml" in line
    assert f"rename it to {name}.yaml" in line


def test_a_data_set_file_with_another_id(write: Write, mistakes: Mistakes) -> None:
    write("conf/dataset/a.yaml", "dataset_id: b\npurpose: eval/question-answer\nuri: x.csv\n")
    (line,) = mistakes("quickstart", "benchmark.dataset_id=a")
    assert line.startswith("conf/dataset/a.yaml:1:1: dataset_id: found 'b', allowed: 'a'")


def test_unquoted_text_that_yaml_misreads_is_explained(write: Write, mistakes: Mistakes) -> None:
    write("conf/experiment/a.yaml", "defaults: [quickstart]\ndescription: 12:30\nname: no\n")
    first, second = mistakes("a")
    assert 'allowed: a text (unquoted 12:30 is read as 750: quote it, "12:30")' in first
    assert 'unquoted no is read as false: quote it, "no")' in second


def test_a_mapping_cannot_be_merged_into_an_interpolation(write: Write, mistakes: Mistakes) -> None:
    write(
        "conf/experiment/a.yaml",
        "defaults: [quickstart]\nbenchmark: {dataset_id: {x: 1}}\ndataset: {dataset_id: {y: 2}}\n",
    )
    first, second = mistakes("a")
    assert "benchmark.dataset_id: found a mapping, allowed: a name" in first
    assert "dataset.dataset_id: found a mapping" in second
    write(
        "conf/experiment/a.yaml",
        "defaults: [quickstart]\nrecipe: {training_config: {data_config: {dataset_id: {x: 1}}}}\n",
    )
    (line,) = mistakes("a")
    assert "is ${dataset.dataset_id} at " in line


def test_missing_keys_are_told_at_the_mapping_that_lacks_them(write: Write, mistakes: Mistakes) -> None:
    write("conf/benchmark/bare.yaml", "benchmark_id: bare\ndataset_id: iso_dates_held_out\nbenchmark_config: {}\n")
    lines = mistakes("quickstart", "benchmark=bare")
    assert [line.split(", allowed")[0] for line in lines] == [
        "conf/benchmark/bare.yaml:1:1: benchmark.scoring_functions: is missing",
        "conf/benchmark/bare.yaml:3:1: benchmark.benchmark_config.eval_candidate: is missing",
    ]


def test_nothing_is_chosen(mistakes: Mistakes) -> None:
    lines = mistakes(None)
    assert any(
        "model: none is chosen: model=NAME (known: bm25, endpoint, folder, llama_3_2_1b_instruct, qwen3_0_6b, " in line
        for line in lines
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no file"),
        ("defaults: [quickstart]\n", "a stored configuration has no defaults list"),
        ("a: b: c\n", "not YAML"),
    ],
)
def test_a_stored_configuration_that_is_none(write: Write, mistakes: Mistakes, text: str | None, words: str) -> None:
    file = Path("stored.yaml") if text is None else write("stored.yaml", text)
    (line,) = mistakes(None, config_file=file)
    assert words in line


def test_a_name_and_a_stored_configuration(write: Write, mistakes: Mistakes) -> None:
    file = write("stored.yaml", "seed: 1\nsed: 2\n")
    lines = mistakes("quickstart", "experiment=eval", config_file=file)
    assert sum("choose one" in line for line in lines) == 2
    assert any(line.startswith("stored.yaml:2:1: sed: unknown key; did you mean seed (stored") for line in lines)


def test_another_tools_config_file(write: Write, mistakes: Mistakes) -> None:
    write("conf/config.yaml", "db: {host: localhost}\n")
    assert mistakes("quickstart") == [
        "conf/config.yaml:1:1: its defaults list has no experiment: "
        "rename this file, or choose a folder with --config-dir"
    ]
    write("conf/config.yaml", "defaults: [a, {b: c}, 3]\n")
    assert "its defaults list has no experiment" in mistakes("quickstart")[0]


def test_anchors_that_multiply(write: Write, mistakes: Mistakes) -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    write("conf/trainer/laughs.yaml", "a0: &a0 [lol]\n" + levels)
    (line,) = mistakes("quickstart", "trainer=laughs")
    assert "anchors multiply without end" in line


def test_a_config_dir_that_is_none(project: Path) -> None:
    with pytest.raises(ConfigError, match="no folder 'nowhere'"):
        load_experiment("quickstart", [], config_dir=Path("nowhere"))


def test_plain_parts_that_do_not_fit_together(mistakes: Mistakes) -> None:
    (line,) = mistakes("quickstart", "benchmark.benchmark_config.eval_candidate.model=other")
    assert "'other' is not this experiment's model: allowed is 'tiny-llama'" in line
    lines = mistakes("quickstart", "recipe=null", "benchmark=null")
    assert lines == [
        "command line: recipe=null: nothing to do: choose a recipe (recipe=sft_full) or a benchmark (benchmark=…)"
    ]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("description=a(1)", "a(1)"),
        ("description='it''s'", "it's"),
        ("description=é", "é"),
        ("description=a: b, 'c' and d", "a: b, 'c' and d"),
        ("+dataset.metadata.my key=5", {"my key": 5}),
    ],
)
def test_what_is_advised_instead_of_an_override_works(override: str, value: object, mistakes: Mistakes) -> None:
    (line,) = mistakes("quickstart", override)
    advised = re.search(r"quote special characters: (.+)$|: write (.+), or put it into a", line)
    assert advised is not None, line
    (word,) = shlex.split(advised[1] or advised[2])
    experiment = load_experiment("quickstart", [word]).experiment
    assert value in (experiment.description, experiment.dataset.metadata if experiment.dataset else None)
