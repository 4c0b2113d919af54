"""Rerankers in this process: cross-encoders, and embedding models, whose vectors can be had by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llsflow.errors import ModelError
from llsflow.models.load import first_line, quiet, torch_dtype
from llsflow.models.rerankers import describe_reranker, is_cross_encoder

BATCH = 32
"""Items that are read together."""


class RankingModel:
    """A reranker with its weights."""

    def __init__(self, model: Any, *, crosses: bool) -> None:
        self.model, self.crosses = model, crosses

    @classmethod
    def load(
        cls, folder: Path, *, dtype: str = "fp32", device: str = "auto", trust_remote_code: bool = False
    ) -> RankingModel:
        """Return the reranker of a folder in Hugging Face's or sentence-transformers' format.

        Raises:
            ModelError: the folder cannot be used, or this machine has no such device.
        """
        from llsflow.models.local import pick_device

        describe_reranker(folder, trust_remote_code=trust_remote_code)
        quiet()
        import sentence_transformers

        crosses = is_cross_encoder(folder)
        kind: Any = sentence_transformers.CrossEncoder if crosses else sentence_transformers.SentenceTransformer
        try:
            model = kind(
                str(folder),
                device=pick_device(device),
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                model_kwargs={"dtype": torch_dtype(dtype), "use_safetensors": True},
            )
        except (ValueError, KeyError, OSError, RuntimeError, ImportError, AttributeError, TypeError) as error:
            raise ModelError(f"the reranker in {str(folder)!r} cannot be loaded: {first_line(error)}") from error
        if crosses and model.num_labels != 1:
            found = f"the cross-encoder in {str(folder)!r} tells {model.num_labels} classes apart"
            raise ModelError(f"{found}: a reranker has one output")
        return cls(model.eval(), crosses=crosses)

    def scores(self, query: str, items: Sequence[str], batch_size: int = BATCH) -> list[float]:
        """Return the relevance of n items; those longer than the model's context are read as far as it goes.

        A cross-encoder reads query and item together, and its own activation makes the score (sigmoid, where the model
        names none). An embedding model's score is its own similarity of both vectors (cosine, where it names none),
        with the prompts that it has for queries and documents.
        """
        if self.crosses:
            pairs = [(query, item) for item in items]
            found = self.model.predict(pairs, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True)
        else:
            settings = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_tensor": True}
            asked = self.model.encode_query([query], **settings)
            found = self.model.similarity(asked, self.model.encode_document(list(items), **settings))[0]
        scores: list[float] = found.float().cpu().tolist()
        return scores

    def vectors(self, items: Sequence[str], batch_size: int = BATCH) -> list[list[float]]:
        """Return the vector of each item, by an embedding model's own pooling and normalisation.

        Raises:
            ModelError: a cross-encoder has none.
        """
        if self.crosses:
            raise ModelError("a cross-encoder reads query and item together: it makes no vectors")
        made = self.model.encode(list(items), batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True)
        vectors: list[list[float]] = made.float().cpu().tolist()
        return vectors
