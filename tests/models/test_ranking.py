"""Rerankers with weights: their scores are those of the bare model, whatever is read together; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from llsflow.errors import ModelError
from llsflow.models.ranking import RankingModel
from llsflow.models.rerankers import describe_reranker, is_cross_encoder
from tests.models.rerankers import cross_encoder, embedding_model, encoder
from tests.models.small import make

QUERY = "capital of france"
ITEMS = ["berlin lies on the spree", "paris is the capital of france", "a letter", "the cat sat on the mat of the dog"]


def vectors(folder: Path, texts: list[str], pooling: str) -> torch.Tensor:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModel.from_pretrained(str(folder)).eval()
    made = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        made.append(states[0] if pooling == "cls" else states.mean(0))
    return torch.nn.functional.normalize(torch.stack(made), dim=-1)


def test_a_cross_encoder_scores_as_the_bare_model_does(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "cross")
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    bare = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        logits = [bare(**tokenizer(QUERY, item, return_tensors="pt")).logits[0, 0] for item in ITEMS]
    scores = RankingModel.load(folder, device="cpu").scores(QUERY, ITEMS)
    assert scores == pytest.approx(torch.sigmoid(torch.stack(logits)).tolist(), abs=1e-5)
    assert len({round(score, 3) for score in scores}) > 2, "the items must differ for the test to tell anything"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_embedding_model_scores_by_the_cosine(tmp_path: Path, pooling: str) -> None:
    folder = embedding_model(tmp_path / "vectors", pooling=pooling)
    asked, *items = vectors(folder, [QUERY, *ITEMS], pooling)
    scores = RankingModel.load(folder, device="cpu").scores(QUERY, ITEMS)
    assert scores == pytest.approx([float(asked @ item) for item in items], abs=1e-5)


def test_prompts_of_the_model_stand_before_query_and_items(tmp_path: Path) -> None:
    prompts = {"query": "query : ", "document": "document : "}
    folder = embedding_model(tmp_path / "vectors", prompts=prompts)
    asked, *items = vectors(folder, [f"query : {QUERY}", *(f"document : {item}" for item in ITEMS)], "cls")
    scores = RankingModel.load(folder, device="cpu").scores(QUERY, ITEMS)
    assert scores == pytest.approx([float(asked @ item) for item in items], abs=1e-5)


def test_an_encoder_without_a_word_on_pooling_takes_the_mean(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "bert")
    asked, *items = vectors(folder, [QUERY, *ITEMS], "mean")
    scores = RankingModel.load(folder, device="cpu").scores(QUERY, ITEMS)
    assert scores == pytest.approx([float(asked @ item) for item in items], abs=1e-5)
    assert not is_cross_encoder(folder)


@pytest.mark.parametrize("make_folder", [cross_encoder, embedding_model])
def test_what_is_read_together_changes_no_score(tmp_path: Path, make_folder: Any) -> None:
    model = RankingModel.load(make_folder(tmp_path / "model"), device="cpu")
    together, alone = model.scores(QUERY, ITEMS * 3, batch_size=5), model.scores(QUERY, ITEMS, batch_size=1)
    assert together == pytest.approx(alone * 3, abs=1e-5)


def test_facts_change_with_the_files_that_decide(tmp_path: Path) -> None:
    folder = embedding_model(tmp_path / "vectors")
    before = describe_reranker(folder)
    assert before.parameters == sum(p.numel() for p in AutoModel.from_pretrained(str(folder)).parameters())
    pooling = folder / "1_Pooling" / "config.json"
    config = json.loads(pooling.read_text())
    pooling.write_text(json.dumps({**config, "pooling_mode": "mean"}))
    assert describe_reranker(folder).weights_digest != before.weights_digest


def test_what_is_no_reranker_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    local = make()
    local.model.save_pretrained(str(text))
    local.tokenizer.save_pretrained(str(text))
    with pytest.raises(ModelError, match=r"writes text and has no modules\.json"):
        RankingModel.load(text)
    with pytest.raises(ModelError, match="tells 3 classes apart: a reranker has one output"):
        RankingModel.load(cross_encoder(tmp_path / "three", num_labels=3), device="cpu")
    with pytest.raises(ModelError, match="there is no reranker's folder"):
        RankingModel.load(tmp_path / "none")
    foreign = embedding_model(tmp_path / "foreign")
    modules = json.loads((foreign / "modules.json").read_text())
    (foreign / "modules.json").write_text(
        json.dumps([*modules, {"idx": 2, "name": "2", "path": "", "type": "os.system"}])
    )
    with pytest.raises(ModelError, match=r"brings its own code \(os\.system\)"):
        RankingModel.load(foreign)
    pickled = encoder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickled weights, which can run code"):
        RankingModel.load(pickled)
