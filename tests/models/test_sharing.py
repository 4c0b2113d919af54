"""Adapters on one base: each answers as if it were merged, whichever of them answered before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from llsflow.models.adapters import attach, save_adapter
from llsflow.models.load import load_model, load_tokenizer
from llsflow.models.local import LocalModel
from llsflow.models.serving import Engine
from llsflow.models.sharing import base_of
from llsflow.schema.sampling import SamplingParams
from tests.models.serving import chat, served
from tests.models.small import ask, questions
from tests.models.test_roles import lora

GREEDY = SamplingParams(max_tokens=8)


def adapter(base: Path, folder: Path, seed: int, **changes: Any) -> Path:
    """Write an adapter that changes the answers."""
    adapted: Any = attach(load_model(base), lora(**{"lora_attn_modules": ["q_proj", "v_proj"], **changes}))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=draw))
    save_adapter(adapted, load_tokenizer(base), folder, str(base), None)
    return folder


@pytest.fixture
def conf(tmp_path: Path, tiny_folder: Path) -> Path:
    """Models `base`, and on it `first`, `second` (DoRA), and `head`, whose adapter is also on the output layer."""
    folders = {
        "base": tiny_folder,
        "first": adapter(tiny_folder, tmp_path / "first", 1, apply_lora_to_mlp=True),
        "second": adapter(tiny_folder, tmp_path / "second", 2, use_dora=True),
        "head": adapter(tiny_folder, tmp_path / "head", 3, apply_lora_to_output=True),
    }
    written = tmp_path / "conf" / "model"
    written.mkdir(parents=True)
    for name, folder in folders.items():
        (written / f"{name}.yaml").write_text(yaml.safe_dump({"model_id": name, "path": str(folder)}))
    return written.parent


def test_adapters_take_turns_on_one_base(conf: Path, tmp_path: Path, tiny_folder: Path) -> None:
    asked = questions(4)
    folders = {"base": tiny_folder, "first": tmp_path / "first", "second": tmp_path / "second"}
    alone = {
        name: [one.text for one in LocalModel.load(folder, device="cpu").generate(asked, GREEDY, batch_size=4)]
        for name, folder in folders.items()
    }
    assert len({str(texts) for texts in alone.values()}) == 3, "the adapters change nothing"
    engine = Engine(max_models=1, batch_size=8, device="cpu")
    engine.start()
    with served(engine, conf) as client, ThreadPoolExecutor(12) as pool:
        wanted = [(name, number) for number in range(4) for name in ("first", "base", "second")]
        told = pool.map(lambda one: chat(str(client.base_url), one[0], asked[one[1]], GREEDY), wanted)
        for (name, number), text in zip(wanted, told, strict=True):
            assert text == alone[name][number], name
        assert sorted(engine.health()["models"]) == ["base", "first", "second"]
        assert len({id(lane.local.model) for lane in engine._lanes.values()}) == 1


def test_one_that_cannot_share_is_merged_into_a_copy(conf: Path, tmp_path: Path, tiny_folder: Path) -> None:
    assert base_of(tmp_path / "head") is None
    assert base_of(tmp_path / "first") == tiny_folder
    assert base_of(tiny_folder) is None
    engine = Engine(max_models=2, batch_size=8, device="cpu")
    engine.start()
    (alone,) = LocalModel.load(tmp_path / "head", device="cpu").generate(ask("x"), GREEDY, batch_size=1)
    with served(engine, conf) as client:
        for name in ("first", "head", "first"):
            told = chat(str(client.base_url), name, ask("x")[0], GREEDY)
            assert (told == alone.text) is (name == "head")


def test_the_base_leaves_with_the_last_of_its_adapters(conf: Path, tmp_path: Path, tiny_folder: Path) -> None:
    engine = Engine(max_models=1, batch_size=8, device="cpu")
    engine.start()
    with served(engine, conf) as client:
        for name, left in (
            ("first", ["first"]),
            ("second", ["first", "second"]),
            ("head", ["head"]),
            ("base", ["base"]),
        ):
            chat(str(client.base_url), name, ask("x")[0], GREEDY)
            assert engine.health()["models"] == left
            assert len(engine._shared) == 1
