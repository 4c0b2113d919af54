"""The embedded engine: warm models in one process, and the requests that wait for them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llsflow.errors import LlsflowError, UnavailableError
from llsflow.models.catalogue import ready_folder
from llsflow.models.describe import weight_files
from llsflow.models.lanes import Counts, Lane, NotEnoughMemory, Waiting, free_memory
from llsflow.models.load import load_tokenizer
from llsflow.models.ranking_lane import RankingLane
from llsflow.models.rerankers import reranker_files
from llsflow.models.sharing import SharedModel, base_of
from llsflow.schema.models import ModelConfig

if TYPE_CHECKING:
    from llsflow.models.ranking import RankingModel

logger = logging.getLogger("llsflow.engine")

State = Literal["starting", "ready", "failed"]
Loaded = tuple[Lane | RankingLane, str | None]
"""A model, and the name of its adapter on the weights that it shares."""


class Engine:
    """Answers tickets in one thread: those for the same model are generated together, and models take turns."""

    def __init__(
        self,
        *,
        max_models: int,
        batch_size: int,
        device: str = "auto",
        dtype: str = "fp32",
        idle_seconds: float = 0.0,
    ) -> None:
        self.max_models, self.batch_size, self.device, self.dtype = max_models, batch_size, device, dtype
        self.idle_seconds = idle_seconds
        """After so long without a request a model leaves the memory; 0: it stays until another needs its place."""
        self.state: State = "starting"
        self.why = ""
        """Why it failed to start."""
        self.counts = Counts()
        self._waiting: deque[Waiting[Any]] = deque()
        self._lanes: OrderedDict[str, Lane | RankingLane] = OrderedDict()
        """Models in memory, the one that was not used for longest first."""
        self._shared: dict[str, SharedModel | RankingModel] = {}
        """Weights in memory, by folder and time of change: max_models counts these."""
        self._weights: dict[str, tuple[str, str | None]] = {}
        """Of each lane: its weights, and its adapter on them."""
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Import what generating needs and begin to answer, in the background."""
        self._thread.start()

    def submit(self, ticket: Waiting[Any]) -> None:
        """Have a ticket answered."""
        with self._changed:
            if self._closing or self.state == "failed":
                ticket.fail(UnavailableError(self.why or "the inference engine is stopping"))
                return
            self._waiting.append(ticket)
            self._changed.notify()

    def close(self, patience_seconds: float = 3.0) -> bool:
        """Stop after the token under way, and return whether that was in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(patience_seconds)
        for ticket in self._open():
            ticket.fail(UnavailableError("the inference engine was stopped"))
        return not self._thread.is_alive()

    def health(self) -> dict[str, Any]:
        """Return the state, the models in memory, how many requests wait, and the counts."""
        return {
            "status": self.state,
            **({"why": self.why} if self.why else {}),
            "models": [lane.model_id for lane in self._lanes.copy().values()],
            "waiting": len(self._open()),
            **vars(self.counts),
        }

    def _open(self) -> list[Waiting[Any]]:
        """Return the requests that are not answered yet; from any thread."""
        with self._changed:
            waiting = list(self._waiting)
        return [*waiting, *(ticket for lane in self._lanes.copy().values() for ticket in lane.open)]

    def _work(self) -> None:
        try:
            import llsflow.models.decode
            import llsflow.models.local  # noqa: F401 - what takes seconds to import is ready for the first request

            self.state = "ready"
        except Exception as error:
            logger.exception("the inference engine cannot start")
            self.why = f"the inference engine cannot start: {type(error).__name__}: {error}"
            self.state = "failed"
            self._closing = True
        while self._something_to_do():
            self._admit()
            for lane in list(self._lanes.values()):
                if len(lane) and not self._closing:
                    lane.step()
        for ticket in self._open():
            ticket.fail(UnavailableError(self.why or "the inference engine is stopping"))

    def _something_to_do(self) -> bool:
        """Wait for requests, while models that nobody asks leave the memory; False: the engine stops."""
        while True:
            with self._changed:
                busy = self._waiting or any(len(lane) for lane in self._lanes.values())
                if busy or self._closing:
                    return not self._closing
                if self._changed.wait(self._next_leaves()):
                    continue
            self._leave()

    def _next_leaves(self) -> float | None:
        """Return after how many seconds the next model is to leave; None: none is."""
        if not self.idle_seconds or not self._lanes:
            return None
        oldest = min(lane.used for lane in self._lanes.values())
        return max(0.01, oldest + self.idle_seconds - time.monotonic())

    def _leave(self) -> None:
        now = time.monotonic()
        for key, lane in list(self._lanes.items()):
            if now - lane.used >= self.idle_seconds:
                self._evict(key)

    def _admit(self) -> None:
        """Hand those that wait to their models, as far as these have room."""
        with self._changed:
            waiting = list(self._waiting)
        for ticket in waiting:
            if not ticket.dropped:
                try:
                    lane = self._lane(ticket.model)
                except LlsflowError as error:
                    self._fail(ticket, UnavailableError(f"model {ticket.model.model_id!r} cannot be loaded: {error}"))
                except Exception as error:
                    logger.exception("%s cannot be loaded", ticket.model.model_id)
                    why = f"the inference engine failed: {type(error).__name__}"
                    self._fail(ticket, UnavailableError(why))
                else:
                    if lane is None:
                        return  # those behind it wait too: a model with requests all the time would never make room
                    if not lane.has_room:
                        continue
                    lane.take(ticket)
            else:
                self.counts.dropped += 1
                ticket.fail(UnavailableError("the request was withdrawn"))
            with self._changed:
                self._waiting.remove(ticket)

    def _fail(self, ticket: Waiting[Any], error: Exception) -> None:
        self.counts.failed += 1
        ticket.fail(error)

    def _lane(self, model: ModelConfig) -> Lane | RankingLane | None:
        """Return a model from memory, or from its folder; None: every model in memory has requests under way."""
        folder = ready_folder(model)
        ranks = model.model_type == "rerank"
        key = f"{model.model_dump_json()}{_stamp(folder, ranks=ranks)}"
        if key in self._lanes:
            self._lanes.move_to_end(key)
            return self._lanes[key]
        whole = folder if ranks else base_of(folder) or folder
        weights = f"{whole}{_stamp(whole, ranks=ranks)}"
        while weights not in self._shared and len(self._shared) >= self.max_models:
            if not self._evict_idle():
                return None
        began = time.perf_counter()
        load = self._load_reranker if ranks else self._load_text_model
        self._lanes[key], adapter = self._with_room(lambda: load(model, folder, weights))
        logger.info("loaded %s from %s in %.1f s", model.model_id, folder, time.perf_counter() - began)
        self._weights[key] = (weights, adapter)
        return self._lanes[key]

    def _load_reranker(self, model: ModelConfig, folder: Path, weights: str) -> Loaded:
        from llsflow.models.ranking import RankingModel

        made = RankingModel.load(
            folder, dtype=self.dtype, device=self.device, trust_remote_code=model.trust_remote_code
        )
        self._shared[weights] = made
        return RankingLane(model.model_id, made, self.batch_size, self.counts), None

    def _load_text_model(self, model: ModelConfig, folder: Path, weights: str) -> Loaded:
        from llsflow.models.local import LocalModel

        whole = base_of(folder) or folder
        if weights not in self._shared:
            code = model.trust_remote_code
            made = LocalModel.load(whole, dtype=self.dtype, device=self.device, trust_remote_code=code)
            self._shared[weights] = SharedModel(made.model)
        shared = self._shared[weights]
        assert isinstance(shared, SharedModel)  # noqa: S101 - a reranker's weights are under a name of their own
        adapter = shared.add(folder) if whole != folder else None
        date = str(model.template_date) if model.template_date else None
        tokenizer = load_tokenizer(
            folder, model.chat_template, None, model.trust_remote_code, model.chat_template_kwargs, date
        )
        local = LocalModel(shared.model, tokenizer)
        put_on = partial(shared.use, adapter)
        return Lane(model.model_id, local, self.batch_size, self.counts, put_on=put_on), adapter

    def _with_room(self, load: Callable[[], Loaded]) -> Loaded:
        """Return what is loaded, after other weights made room for it where they must."""
        from llsflow.models.local import out_of_memory

        while True:
            try:
                return load()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if not self._evict_idle():
                raise NotEnoughMemory("out of memory: take a smaller model, or another device")

    def _evict_idle(self) -> bool:
        """Have the weights that were not used for longest leave, and return whether some were without requests."""
        busy = {self._weights[key][0] for key, lane in self._lanes.items() if len(lane)}
        idle = next((self._weights[key][0] for key in self._lanes if self._weights[key][0] not in busy), None)
        for key in [key for key in self._lanes if self._weights[key][0] == idle]:
            self._evict(key)
        return idle is not None

    def _evict(self, key: str) -> None:
        model_id = self._lanes.pop(key).model_id
        weights, adapter = self._weights.pop(key)
        shared = self._shared[weights]
        if adapter and isinstance(shared, SharedModel):
            shared.remove(adapter)
        if not any(others == weights for others, _ in self._weights.values()):
            del self._shared[weights]
        free_memory()
        logger.info("%s left the memory", model_id)


def _stamp(folder: Path, *, ranks: bool) -> str:
    """Return what changes when the model's files do: its answers are always those of the files as they are."""
    names = ("config.json", "tokenizer.json", "chat_template.jinja")
    files = reranker_files(folder) if ranks else [*weight_files(folder), *(folder / name for name in names)]
    return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()])
