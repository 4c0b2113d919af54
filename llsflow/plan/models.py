"""The models that an experiment names, as they are found on this machine: what they are, and what identifies them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llsflow.models import describe
from llsflow.models.describe import ModelFacts
from llsflow.models.rerankers import describe_reranker, is_cross_encoder
from llsflow.schema.models import TEMPLATE_DATE, ModelConfig


@dataclass(frozen=True)
class FoundModel:
    """A model, looked up."""

    config: ModelConfig
    path: str | None = None
    """Absolute folder or hub id; None: the model is to be built, or is an endpoint's."""
    facts: ModelFacts | None = None
    """None: a hub id that is not on this machine yet, an endpoint, or one without weights."""

    @property
    def elsewhere(self) -> dict[str, Any] | None:
        """Return the record of a model of which nothing is loaded from a folder: an endpoint's, or a built-in one."""
        outside = self.config.endpoint or self.config.builtin
        return self.config.model_dump(mode="json") if outside else None

    @property
    def makes_vectors(self) -> bool:
        """Return whether it is an embedding model, as far as is known: an endpoint's says so itself."""
        here = Path(self.path) if self.path else None
        known = here is not None and here.is_dir()
        return not self.config.builtin and not (known and here is not None and is_cross_encoder(here))

    @property
    def loading(self) -> dict[str, Any]:
        """Return how its files are loaded."""
        return {"revision": self.config.revision, "trust_remote_code": self.config.trust_remote_code}

    @property
    def writing(self) -> dict[str, Any]:
        """Return how its tokenizer and chat template are loaded, apart from the day that the template writes."""
        model = self.config
        given = {"chat_template": model.chat_template, "chat_template_kwargs": model.chat_template_kwargs}
        return {**self.loading, **given}

    @property
    def date(self) -> str:
        """Return the day that its chat template writes in training and evaluation."""
        return str(self.config.template_date or TEMPLATE_DATE)

    @property
    def template_identity(self) -> dict[str, Any]:
        """Return what decides how its chat template writes, apart from the model's own template."""
        return {
            "chat_template": self.template,
            "chat_template_kwargs": self.config.chat_template_kwargs,
            "template_date": self.date,
        }

    @property
    def template(self) -> str | None:
        """Return the text of the chat template that replaces the model's own."""
        given = self.config.chat_template
        path = Path(given) if given and "\n" not in given else None
        return path.read_text("utf-8") if path and path.is_file() else given

    def identity(self, *, weights: bool = True) -> dict[str, Any]:
        """Return what decides its answers; without `weights` what decides how text becomes token ids."""
        model = self.config
        if model.endpoint:
            return {"endpoint": model.endpoint.base_url, "model": model.endpoint.model or model.model_id}
        if model.builtin:
            return {"builtin": model.builtin}
        if model.init:
            kind: dict[str, Any] = {"init": model.init.model_dump(mode="json")}
        elif self.facts is None:
            kind = {"hub": model.path, "revision": model.revision}
        else:
            kind = {"tokenizer": self.facts.tokenizer_digest}
            kind |= {"weights": self.facts.weights_digest} if weights else {}
        return {**kind, **self.template_identity}


def find(model: ModelConfig) -> FoundModel:
    """Look a model up.

    Raises:
        LlsflowError: its folder cannot be used.
    """
    if model.init is not None:
        return FoundModel(model, facts=describe.describe_init(model.init))
    if model.path is None:
        return FoundModel(model)
    folder = describe.locate(model.path, model.revision)
    if folder is None:
        return FoundModel(model, model.path)
    if model.model_type == "rerank":
        facts = describe_reranker(folder, trust_remote_code=model.trust_remote_code)
    else:
        facts = describe.describe_folder(folder)
    return FoundModel(model, str(folder.absolute()), facts)
