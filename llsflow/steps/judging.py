"""Judges within an evaluation: their replies are kept as they come, and none is asked for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from llsflow.data.conversation import Conversation, user
from llsflow.models.generation import Generation
from llsflow.schema.models import TEMPLATE_DATE, ModelConfig
from llsflow.schema.sampling import SamplingParams, TopPSamplingStrategy
from llsflow.steps.context import StepContext
from llsflow.steps.results import generations_folder

REPLIES = "replies.jsonl"

MOST_TOKENS = 512
"""Of a judge's reply."""

BATCH = 16
"""Prompts that a judge in this process reads together."""


def sampling_of_try(number: int) -> SamplingParams:
    """Return how a judge's reply is sampled: greedily first, then drawn, so that another try may say something else."""
    if number == 0:
        return SamplingParams(max_tokens=MOST_TOKENS)
    return SamplingParams(max_tokens=MOST_TOKENS, strategy=TopPSamplingStrategy(temperature=0.7))


def conversation_of(prompt: str) -> Conversation:
    """Return what a judge is asked."""
    return Conversation([user(prompt)])


def text_of(made: Generation) -> str | ValueError:
    """Return the reply, or why there is none."""
    return ValueError(made.error) if made.error else made.text


class Asker:
    """Asks the models of a step's scoring functions; replies are kept as they come, vectors are made again.

    Replies lie beside the answers that they are about, so that an evaluation that is asked again finds them.
    """

    def __init__(self, context: StepContext) -> None:
        self.context = context
        self.models: Mapping[str, Any] = context.step.locations["judges"]
        self.unanswered: set[int] = set()
        """Places of rows that a judge has not answered for a reason that passes."""
        self.path = generations_folder(context.step) / REPLIES
        self.kept = _read(self.path.read_bytes() if self.path.is_file() else b"")

    def __call__(self, name: str, prompts: Mapping[int, str], number: int) -> dict[int, str | ValueError]:
        settings = self.context.step.settings
        judge = [name, settings.get("judges", {}).get(name), settings["seed"]]
        keys = {place: _key(judge, prompt, number) for place, prompt in prompts.items()}
        new = {place: conversation_of(prompt) for place, prompt in prompts.items() if keys[place] not in self.kept}
        answered: dict[int, Generation] = {}
        if new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:

                def keep(place: int, made: Generation) -> None:
                    if made.error is None:  # what failed is asked again by the next run
                        file.write(json.dumps({"key": keys[place], "reply": made.text}).encode() + b"\n")
                        file.flush()

                answered = _answers(self.context, self._model(name))(new, number, keep)
        for place, made in answered.items():
            if made.passing:
                self.unanswered.add(place)
            elif made.error is None:
                self.kept[keys[place]] = made.text
        return {place: text_of(answered[place]) if place in answered else self.kept[keys[place]] for place in prompts}

    def embed(self, name: str, texts: Mapping[int, str]) -> Mapping[int, list[float] | ValueError]:
        """Return the vectors of texts, by their places."""
        from llsflow.models.remote import RemoteModel

        model = self._model(name)
        if model.endpoint:
            return RemoteModel.of(model).embed(texts, stopping=self.context.plan_run.stopping)
        made = self._embedding_model(name).vectors(list(texts.values()))
        return dict(zip(texts, made, strict=True))

    @cache  # noqa: B019 - it lives as long as the step
    def _embedding_model(self, name: str) -> Any:
        from llsflow.models.catalogue import ready_folder
        from llsflow.models.ranking import RankingModel

        model = self._model(name)
        device, code = self.context.step.locations["device"], model.trust_remote_code
        return RankingModel.load(ready_folder(model), device=device, trust_remote_code=code)

    def _model(self, name: str) -> ModelConfig:
        return ModelConfig.model_validate(self.models[name])


Told = Callable[[int, Generation], None]
Answers = Callable[[Mapping[int, Conversation], int, Told], dict[int, Generation]]


def _answers(context: StepContext, model: ModelConfig) -> Answers:
    seed = context.step.settings["seed"]

    def endpoint(asked: Mapping[int, Conversation], number: int, told: Told) -> dict[int, Generation]:
        from llsflow.models.remote import RemoteModel

        return RemoteModel.of(model).answer(
            asked,
            sampling_of_try(number),
            seed=seed + number,
            on_generation=told,
            stopping=context.plan_run.stopping,
        )

    def local(asked: Mapping[int, Conversation], number: int, told: Told) -> dict[int, Generation]:
        from llsflow.models.catalogue import ready_folder
        from llsflow.models.local import LocalModel

        judge = LocalModel.load(
            ready_folder(model),
            device=context.step.locations["device"],
            chat_template=model.chat_template,
            chat_template_kwargs=model.chat_template_kwargs,
            template_date=str(model.template_date or TEMPLATE_DATE),
            trust_remote_code=model.trust_remote_code,
        )
        sampling = sampling_of_try(number)
        if judge.context_length:
            room = max(1, min(MOST_TOKENS, judge.context_length // 2))
            sampling = sampling.model_copy(update={"max_tokens": room})
        made = judge.answer(asked, sampling, seed=seed + number, batch_size=BATCH)
        for place, generation in made.items():
            told(place, generation)
        return made

    return endpoint if model.endpoint else local


def _key(judge: list[Any], prompt: str, number: int) -> str:
    return hashlib.sha256(json.dumps([judge, prompt, number], sort_keys=True).encode()).hexdigest()


def _read(content: bytes) -> dict[str, str]:
    """Return the replies that were kept; what a killed process was writing is none."""
    found: dict[str, str] = {}
    for line in content.splitlines():
        try:
            record = json.loads(line)
            found[record["key"]] = record["reply"]
        except (ValueError, TypeError, KeyError):
            continue
    return found
