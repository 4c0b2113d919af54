"""From a checked experiment to its Plan: which steps, with which slice of the experiment, and why each will run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.data.dataset import portable
from llsflow.plan import estimate
from llsflow.plan.agents import agent_parts
from llsflow.plan.estimate import Cost
from llsflow.plan.models import FoundModel
from llsflow.plan.reasons import judge
from llsflow.plan.world import World, look
from llsflow.schema.benchmarks import AgentCandidate, with_model
from llsflow.schema.datasets import HELD_OUT
from llsflow.schema.experiment import Experiment, registered_name
from llsflow.schema.plan import Estimate, Plan, Step
from llsflow.scorers import outside_code
from llsflow.steps import AGENTS, code_of, code_version, copies, results
from llsflow.steps.code import digest_alone

UNKEYED_RECIPE = (
    *("checkpoint_every_n_steps", "keep_checkpoints", "checkpoint_dir", "export", "export_checkpoint", "allow_overlap"),
    *("samples_per_validation", "sample_max_tokens"),
)
"""Fields of a recipe that do not change what is learned."""

ORDER = ("n_epochs", "max_steps_per_epoch", "gradient_accumulation_steps")
"""Fields of a training_config that decide which examples are trained on at all, when an epoch is cut short."""

UNKEYED_TRAINER = ("num_threads", "num_workers")
UNKEYED_BENCHMARK = ("batch_size", "baseline", "gate", "metadata")
SCORING = ("benchmark_id", "scoring_functions")
"""Of a benchmark, what decides its scores and not its answers."""


def compile_plan(experiment: Experiment, config_dir: Path | None = None) -> Plan:
    """Return the experiment's plan, with every path absolute; nothing is run.

    Raises:
        DataError: everything that is wrong with the model and the rows, at once.
        ConfigError: recipe.checkpoint_dir holds something else.
    """
    world = look(experiment, config_dir)
    experiment = _absolute(experiment, world)
    steps = list(_Compiler(experiment, world).steps())
    if experiment.recipe and experiment.recipe.checkpoint_dir:
        copies.check(Path(experiment.recipe.checkpoint_dir), next(s.key for s in steps if s.kind == "export"))
    previous = _previous(experiment.name)
    judged: list[Step] = []
    for step in steps:
        judged.append(judge(step, judged, previous))
    return Plan(key=home.digest([step.key for step in judged]), experiment=experiment, steps=judged)


def remember(plan: Plan) -> None:
    """Keep the plan as the last one of its experiment, so that the next can say what changed."""
    with home.storage_errors(home.home()):
        home.write_json(_memo(plan.experiment.name), plan.model_dump(mode="json", include={"key", "steps"}))


def _memo(name: str) -> Path:
    return home.home() / "plans" / f"{name.replace('/', '_')}.json"


def _previous(name: str) -> dict[str, Step]:
    found = home.read_json(_memo(name))
    try:
        return {step["name"]: Step.model_validate(step, extra="ignore") for step in (found or {}).get("steps", [])}
    except ValueError:  # written by another version: what changed cannot be said
        return {}


def _absolute(experiment: Experiment, world: World) -> Experiment:
    """Return the experiment with paths that hold from any folder."""
    record = experiment.model_dump(mode="json")
    # as it was found: rows of the store are named with their digest
    found = {name: source.config for name, source in world.sources.items()}
    if experiment.dataset:
        record["dataset"] = portable(found.get(experiment.dataset.dataset_id, experiment.dataset))
    record["datasets"] = {name: portable(found.get(name, dataset)) for name, dataset in experiment.datasets.items()}
    if world.own.path:
        record["model"]["path"] = world.own.path
    if experiment.recipe and experiment.recipe.checkpoint_dir:
        record["recipe"]["checkpoint_dir"] = str(Path(experiment.recipe.checkpoint_dir).expanduser().absolute())
    template = experiment.model.chat_template
    if template and "\n" not in template and Path(template).is_file():
        record["model"]["chat_template"] = str(Path(template).absolute())
    return Experiment.model_validate(record)


class _Compiler:
    """Builds the steps in order; each knows its inputs' keys when it is made."""

    def __init__(self, experiment: Experiment, world: World) -> None:
        self.experiment, self.world = experiment, world
        self.made: dict[str, Step] = {}
        self.cost = Cost(None, 0.0)
        self.template = world.own.template
        self.tokenizer = world.own.writing
        if experiment.recipe:
            own, more = self.tokenizer["chat_template_kwargs"], experiment.recipe.chat_template_kwargs
            self.tokenizer["chat_template_kwargs"] = {**own, **more}

    def steps(self) -> Iterator[Step]:
        """Yield the plan's steps."""
        experiment = self.experiment
        if experiment.model.init:
            yield self._model()
        if experiment.recipe:
            yield self._prepare()
            if experiment.recipe.kind == "dpo":
                yield self._reference()
            yield self._train()
            yield self._export()
        if experiment.benchmark:
            yield from self._evaluations()
        yield self._record()
        if experiment.benchmark and experiment.benchmark.gate:
            yield self._gate()

    def _evaluations(self) -> Iterator[Step]:
        """Yield the evaluation of each model that answers, and their comparison where there are two."""
        baseline, trained = self.world.baseline, self.experiment.recipe is not None
        if baseline:
            yield self._evaluate("baseline", None if self._is_export(baseline) else baseline)
        else:
            yield self._evaluate("base", self.world.own)
        if trained or baseline:
            label = "tuned" if trained else "candidate"
            yield self._evaluate(label, None if trained else self.world.own)
            yield self._compare("baseline" if baseline else "base", label)

    def _is_export(self, model: FoundModel) -> bool:
        """Return whether the model is what this plan trained before, as a champion is that passed its gate."""
        done = results.finished(self.made["export"]) if "export" in self.made else None
        return done is not None and model.path == str(Path(done.folder) / "model")

    def _make(
        self,
        name: str,
        kind: str,
        settings: dict[str, Any],
        *,
        inputs: dict[str, str],
        locations: dict[str, Any] | None = None,
        cost: Estimate | None = None,
    ) -> Step:
        keys = {role: self.made[source].key for role, source in inputs.items()}
        key = home.digest({"kind": kind, "settings": settings, "inputs": keys, "code": code_version(kind)})
        step = Step(
            name=name,
            kind=kind,
            key=key,
            settings=settings,
            inputs=inputs,
            locations=locations or {},
            estimate=cost or Estimate(),
        )
        self.made[name] = step
        return step

    def _base_inputs(self) -> dict[str, str]:
        return {"model": "model"} if "model" in self.made else {}

    def _base_settings(self, *, weights: bool) -> dict[str, Any]:
        """Return what identifies a model that no step of the plan makes."""
        if "model" in self.made:
            return self.world.own.template_identity
        return self.world.own.identity(weights=weights)

    def _data(self, dataset_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what identifies rows by content, and where they are."""
        source = self.world.source(dataset_id)
        facts = self.world.facts[dataset_id.removesuffix(HELD_OUT)]
        identity = {
            "digest": facts.digest,
            "held_out": dataset_id.endswith(HELD_OUT),
            "hold_out": source.config.hold_out,
            "purpose": source.config.purpose,
        }
        place = {
            "dataset_id": dataset_id,
            "config": source.config.model_dump(mode="json"),
            "path": str(source.path.absolute()) if source.path else None,
        }
        return identity, place

    def _model(self) -> Step:
        init = self.experiment.model.init
        assert init is not None  # noqa: S101 - asked only then
        facts = self.world.model
        parameters = facts.parameters if facts else None
        settings = {"init": init.model_dump(mode="json"), "seed": self.experiment.seed}
        cost = Estimate(parameters=parameters, disk_bytes=parameters * 4 if parameters else None)
        return self._make("model", "model", settings, inputs={}, cost=cost)

    def _prepare(self) -> Step:
        recipe = self.experiment.recipe
        assert recipe is not None  # noqa: S101 - asked only then
        config = recipe.training_config.data_config
        assert config is not None  # noqa: S101 - cross_checks refused it
        parts = {"train": config.dataset_id}
        if config.validation_dataset_id:
            parts["validation"] = config.validation_dataset_id
        data = {part: self._data(dataset_id) for part, dataset_id in parts.items()}
        settings = {
            **self._base_settings(weights=False),
            "chat_template_kwargs": self.tokenizer["chat_template_kwargs"],
            "data": {part: identity for part, (identity, _) in data.items()},
            "tokens": {
                "data_format": config.data_format,
                "train_on_input": bool(config.train_on_input),
                "max_length": recipe.max_length or self.world.context(),
                "overlong": recipe.overlong,
                "pairs": recipe.kind == "dpo",
            },
        }
        step = self._make(
            "prepare",
            "prepare",
            settings,
            inputs=self._base_inputs(),
            locations={
                "data": {part: place for part, (_, place) in data.items()},
                "model": self.world.own.path,
                "tokenizer": {**self.tokenizer, "template_date": self.world.own.date},
            },
        )
        done = results.finished(step)
        exact = done.summary["train"]["tokens"] if done else None
        self.cost = estimate.cost_of(self.world, config.dataset_id, exact)
        step = step.model_copy(update={"estimate": estimate.of_prepare(self.world, config.dataset_id, self.cost)})
        self.made["prepare"] = step
        return step

    def _reference(self) -> Step:
        experiment = self.experiment
        recipe = experiment.recipe
        assert recipe is not None  # noqa: S101 - asked only then
        config = recipe.training_config
        data = config.data_config
        assert data is not None  # noqa: S101 - cross_checks refused it
        trainer = experiment.trainer
        cut = config.max_steps_per_epoch > 0
        limit = max(0, config.max_validation_steps or 0) * data.batch_size
        settings = {
            **self._base_settings(weights=True),
            "trained": {
                **config.model_dump(mode="json", include=set(ORDER)),
                **data.model_dump(mode="json", include={"batch_size", "shuffle", "packed"}),
                **recipe.model_dump(mode="json", include={"group_by_length", "packed_length"}),
                "devices": trainer.devices,
                "seed": experiment.seed,
            }
            if cut
            else "all",
            "validated": limit if data.validation_dataset_id else None,
            "precision": [config.dtype, trainer.precision, trainer.accelerator],
        }
        rows = self.world.rows(data.dataset_id)
        return self._make(
            "reference",
            "reference",
            settings,
            inputs={"data": "prepare", **self._base_inputs()},
            locations={
                "model": self.world.own.path,
                "tokenizer": self.tokenizer,
                "load": self.world.own.loading,
                "recipe": recipe.model_dump(mode="json"),
                "trainer": trainer.model_dump(mode="json"),
                "seed": experiment.seed,
            },
            cost=estimate.of_reference(rows, self.cost),
        )

    def _train(self) -> Step:
        experiment = self.experiment
        assert experiment.recipe is not None  # noqa: S101 - asked only then
        recipe, free = _split(experiment.recipe.model_dump(mode="json"), UNKEYED_RECIPE)
        data = recipe["training_config"]["data_config"]
        # the content is an input: what it is called means nothing
        names = {name: data.pop(name) for name in ("dataset_id", "validation_dataset_id")}
        trainer, free_trainer = _split(experiment.trainer.model_dump(mode="json"), UNKEYED_TRAINER)
        settings = {
            **self._base_settings(weights=True),
            "recipe": recipe,
            "trainer": trainer,
            "seed": experiment.seed,
        }
        return self._make(
            "train",
            "train",
            settings,
            inputs={
                "data": "prepare",
                **({"reference": "reference"} if "reference" in self.made else {}),
                **self._base_inputs(),
            },
            locations={
                "model": self.world.own.path,
                "tokenizer": self.tokenizer,
                "load": self.world.own.loading,
                "recipe": free,
                "datasets": names,
                "trainer": free_trainer,
            },
            cost=estimate.of_train(self.world, experiment, self.cost),
        )

    def _export(self) -> Step:
        recipe = self.experiment.recipe
        assert recipe is not None  # noqa: S101 - asked only then
        dtype = recipe.training_config.dtype or "fp32"
        cost = estimate.of_export(self.cost, dtype)
        settings = {"dtype": dtype, "export": recipe.export, "export_checkpoint": recipe.export_checkpoint}
        return self._make("export", "export", settings, inputs={"train": "train"}, cost=cost)

    def _evaluate(self, label: str, model: FoundModel | None) -> Step:
        """Return the evaluation of a model; null: of the one that training leaves."""
        experiment = self.experiment
        assert experiment.benchmark is not None  # noqa: S101 - asked only then
        benchmark, free = _split(experiment.benchmark.model_dump(mode="json"), UNKEYED_BENCHMARK)
        identity, place = self._data(experiment.benchmark.dataset_id)
        # who answers is identified by content: what it is called means nothing
        candidate = with_model(experiment.benchmark.benchmark_config.eval_candidate, "candidate")
        benchmark["benchmark_config"]["eval_candidate"] = candidate.model_dump(mode="json")
        recipe = experiment.recipe
        own = model is self.world.own
        if model is None:
            inputs, who = {"model": "export"}, self.world.own.template_identity
        else:
            inputs = self._base_inputs() if own else {}
            who = self._base_settings(weights=True) if own else model.identity()
        settings = {
            **who,
            "benchmark": benchmark,
            "data": identity,
            "dtype": (recipe.training_config.dtype or "fp32") if recipe else "fp32",
            "seed": experiment.seed,
        }
        if isinstance(candidate, AgentCandidate):
            settings["agent"] = agent_parts(experiment)
        settings["generations"] = self._generations(settings, inputs)
        if code := outside_code(experiment.benchmark.scoring_functions):
            settings["scoring_code"] = code
        if self.world.judges:
            settings["judges"] = self.world.judges
        # what training leaves has its template and the variables of it
        writing = model.writing if model else {"chat_template": None}
        tokenizer = {**writing, "template_date": (model or self.world.own).date}
        judges = {name: experiment.named_model(name) for name in self.world.judges}
        cost = estimate.cost_of(self.world, experiment.benchmark.dataset_id)
        return self._make(
            f"evaluate-{label}",
            "evaluate",
            settings,
            inputs=inputs,
            locations={
                "benchmark": free,
                "data": place,
                "model": model.path if model else None,
                "tokenizer": tokenizer,
                "device": experiment.trainer.accelerator,
                "elsewhere": model.elsewhere if model else None,
                "judges": {name: model.model_dump(mode="json") for name, model in judges.items() if model},
            },
            cost=estimate.of_evaluate(self.world, experiment, cost),
        )

    def _generations(self, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        """Return what identifies the answers: how they are scored is no part of it, so that it may change alone."""
        benchmark = dict(settings["benchmark"])
        asked = {name: value for name, value in benchmark["benchmark_config"].items() if name != "scoring_params"}
        benchmark = {name: value for name, value in benchmark.items() if name not in SCORING}
        keys = {role: self.made[source].key for role, source in inputs.items()}
        # those that make the questions import the scoring functions too, which decide no answer
        code = [code_of("llsflow.steps.answers", (AGENTS,)), digest_alone("llsflow.evals", "llsflow.steps.evaluate")]
        return home.digest(
            {**settings, "benchmark": {**benchmark, "benchmark_config": asked}, "inputs": keys, "code": code}
        )

    def _compare(self, baseline: str, candidate: str) -> Step:
        """Return the comparison of two evaluations, named by their labels."""
        benchmark, recipe = self.experiment.benchmark, self.experiment.recipe
        assert benchmark is not None  # noqa: S101 - asked only then
        data = {}
        if recipe and recipe.training_config.data_config:
            trained = recipe.training_config.data_config.dataset_id
            data = {"training": self._data(trained), "judged": self._data(benchmark.dataset_id)}
        settings: dict[str, Any] = {
            "seed": self.experiment.seed,
            "labels": [baseline, candidate],
            "data": {name: identity for name, (identity, _) in data.items()},
            "num_examples": benchmark.benchmark_config.num_examples,
        }
        if benchmark.gate:
            settings["gate"] = benchmark.gate.model_dump(mode="json")
        return self._make(
            "compare",
            "compare",
            settings,
            inputs={"baseline": f"evaluate-{baseline}", "candidate": f"evaluate-{candidate}"},
            locations={"data": {name: place for name, (_, place) in data.items()}},
        )

    def _gate(self) -> Step:
        """Return the last step: the report is there whether or not the gate is passed."""
        settings = {"registered": registered_name(self.experiment)}
        inputs = {name: name for name in self.made if name in ("compare", "record", "export")}
        return self._make("gate", "gate", settings, inputs=inputs)

    def _record(self) -> Step:
        experiment = self.experiment
        # where the record goes may hold a password: no step's output on disk repeats it
        record = experiment.model_dump(mode="json", exclude={"trainer": True, "tracking": {"uri"}})
        settings = {"experiment": record}
        return self._make("record", "record", settings, inputs={name: name for name in self.made})


def _split(record: dict[str, Any], free: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the part of a record that decides the result, and the rest."""
    kept = {name: value for name, value in record.items() if name not in free}
    return kept, {name: record[name] for name in free if name in record}
