"""`run_rounds`: iterative methods, one resumable stage after another.

    start                                   the policy before the first round
    generate_0  score_0  select_0           prompts -> completions -> scores -> trees
    train_0     evaluate_0  promote_0       trees -> adapter -> measures -> what round 1 starts from
    generate_1  ...

A stage is named by the content of its inputs and skipped when they hash to what they were. A run
killed at any moment and started again ends in the same bytes (CPU, one process). Methods that do
not sample skip the first two states; the methods of the literature are in `recipes/`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field

from trillium.config import Seed
from trillium.deployment.provenance import warn_unservable
from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.generation.interface import Generator
from trillium.policies.adapters import POLICY_ADAPTER, adapter_digest, mix_adapter, save_adapter
from trillium.policies.arithmetic import restore_adapter
from trillium.runs import Run, Stage, hash_config
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.layout import evaluating
from trillium.scoring.reference import BaseReference, LiveReference
from trillium.training.align import align
from trillium.training.config import AlignConfig, TrainConfig
from trillium.training.journal import read_metrics
from trillium.training.recipes.recipe import Ema, Evaluation, Recipe, Sampled
from trillium.training.round_rows import (
    check_prompts,
    hash_prompts,
    hash_trees,
    read_trees,
    write_trees,
)
from trillium.training.round_sampling import (
    generate_stage,
    read_candidates,
    read_samples,
    score_stage,
)

_REFERENCE = "reference"


class RoundsConfig(BaseModel):
    """Choose how each round is optimised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: TrainConfig = Field(
        default=TrainConfig(), description="of every round; its seed is drawn from `seed`"
    )
    seed: Seed = Field(default=0, description="sampling, selection and order of the trees")


@dataclass(frozen=True)
class Round:
    """Hold what one round left behind.

    `trained` is the adapter it trained, `policy` the one that the next round starts from, and
    `promotion` holds the measures of the step between the two.
    """

    trees: Path
    trained: Path
    policy: Path
    metrics: tuple[dict[str, int | float], ...]
    evaluation: Mapping[str, int | float]
    promotion: Mapping[str, int | float]


def run_rounds(
    recipe: Recipe,
    config: RoundsConfig,
    policy: PeftModel,
    folder: Path,
    *,
    generator: Generator | None = None,
    evaluation: Evaluation | None = None,
) -> tuple[Round, ...]:
    """Do what is missing of all rounds; the adapter that `policy` comes with is the start.

    `generator` must sample from `policy` itself. In the end the policy holds the last promotion.
    Raises ConfigError when a recipe that samples has no generator, DataError when it has no prompt
    or two share an id, and whatever `align` raises.
    """
    if isinstance(recipe.source, Sampled):
        if generator is None:
            raise ConfigError(
                f"recipe {recipe.name}: samples from the policy and has no generator (needs one "
                "that continues prompts with this policy); pass generator"
            )
        check_prompts(f"recipe {recipe.name}", recipe.source.prompts)
    with Run.open(folder, config, seed=config.seed) as run:
        journey = _Journey(recipe, config, policy, run, generator, evaluation)
        rounds = tuple(journey.finish(number) for number in range(recipe.n_rounds))
        restore_adapter(policy, journey.policy.folder)
    return rounds


def derive_seed(seed: int, *names: str | int) -> int:
    """Return the seed that belongs to one part of a run."""
    digest = hashlib.sha256("/".join(map(str, [seed, *names])).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class _Saved:
    """An adapter in the run folder, and its hash."""

    folder: Path
    hash: str

    @classmethod
    def of(cls, stage: Stage, output: str) -> "_Saved":
        return cls(stage.path(output), stage.record.outputs[output])


class _Journey:
    """The rounds of one run; every stage reads what it needs from the files of earlier ones."""

    def __init__(
        self,
        recipe: Recipe,
        config: RoundsConfig,
        model: PeftModel,
        run: Run,
        generator: Generator | None,
        evaluation: Evaluation | None,
    ) -> None:
        self._recipe, self._config, self._model, self._run = recipe, config, model, run
        self._generator, self._evaluation = generator, evaluation
        self._base = fingerprint_base(model)
        self._trained: list[_Saved] = []
        stage = run.stage("start", {"base": self._base, "adapter": adapter_digest(model)})
        if stage.is_due:
            save_adapter(model, stage.work / "start")
            stage.finish(["start"])
        self.policy = _Saved.of(stage, "start")
        self._reference = self.policy

    def finish(self, number: int) -> Round:
        """Go through the stages of one round; `policy` is then what the next one starts from."""
        selected = self._select(number)
        train = self._train(number, selected)
        evaluation = self._evaluate(number)
        promote = self._promote(number)
        return Round(
            trees=selected,
            trained=self._trained[-1].folder,
            policy=self.policy.folder,
            metrics=tuple(read_metrics(train.path(f"round_{number}"))),
            evaluation=evaluation,
            promotion=promote.record.counts,
        )

    def _select(self, number: int) -> Path:
        """Write the trees of a round, after sampling and scoring where the recipe does that."""
        source, output = self._recipe.source, f"round_{number}/trees.jsonl"
        if not isinstance(source, Sampled):
            trees = source.trees(number)
            stage = self._run.stage(f"select_{number}", {"trees": hash_trees(trees)})
            if stage.is_due:
                write_trees(stage.work / output, trees)
                stage.finish([output], {"trees": len(trees)})
            return stage.path(output)
        sampled = self._generate(number, source)
        scored = self._score(number, source, sampled)
        inputs = {"samples": sampled.hash, "scores": scored.hash}
        inputs |= {"selection": source.selection.identity, "seed": str(self._config.seed)}
        stage = self._run.stage(f"select_{number}", inputs)
        if stage.is_due:
            trees = [
                tree
                for each in read_candidates(
                    source.prompts,
                    sampled.path(f"round_{number}/samples.jsonl"),
                    scored.path(f"round_{number}/scores.jsonl"),
                )
                for tree in source.selection.select(
                    each, seed=derive_seed(self._config.seed, "select", number, each.prompt.id)
                )
            ]
            write_trees(stage.work / output, trees)
            stage.finish([output], {"prompts": len(source.prompts), "trees": len(trees)})
        return stage.path(output)

    def _generate(self, number: int, source: Sampled) -> Stage:
        """Sample completions from the policy that the round starts from."""
        assert self._generator is not None  # run_rounds saw to it
        plan = self._generator.plan(
            [prompt.ids for prompt in source.prompts],
            n_samples=source.sampling.n_samples,
            seed=derive_seed(self._config.seed, "generate", number),
        )
        inputs = {
            "base": self._base,
            "policy": self.policy.hash,
            "prompts": hash_prompts(source.prompts),
            "sampling": hash_config(source.sampling),
            "plan": hash_json(
                [[list(batch.indices), batch.n_samples, batch.seed] for batch in plan]
            ),
        }
        stage = self._run.stage(f"generate_{number}", inputs)
        if stage.is_due:
            restore_adapter(self._model, self.policy.folder)
            output = f"round_{number}/samples.jsonl"
            generate_stage(stage, output, source.prompts, plan, source.sampling, self._generator)
        return stage

    def _score(self, number: int, source: Sampled, sampled: Stage) -> Stage:
        """Ask the judge about every completion."""
        inputs = {"samples": sampled.hash, "judge": source.judge.identity}
        stage = self._run.stage(
            f"score_{number}", {**inputs, "prompts": hash_prompts(source.prompts)}
        )
        if stage.is_due:
            samples = read_samples(sampled.path(f"round_{number}/samples.jsonl"))
            output = f"round_{number}/scores.jsonl"
            score_stage(stage, output, source.prompts, samples, source.judge)
        return stage

    def _train(self, number: int, selected: Path) -> Stage:
        """Train from the round's start against the round's reference, with a fresh optimizer."""
        recipe, folder = self._recipe, f"round_{number}"
        seed = derive_seed(self._config.seed, "train", number)
        train = self._config.train.model_copy(update={"seed": seed})
        config = AlignConfig(objective=recipe.objective, train=train)
        trees = read_trees(selected)
        inputs = {
            "base": self._base,
            "trees": hash_trees(trees),
            "align": hash_config(config),
            "policy": self.policy.hash,
            "reference": "base" if recipe.reference == "base" else self._reference.hash,
        }
        stage = self._run.stage(f"train_{number}", inputs)
        if stage.is_due:
            restore_adapter(self._model, self.policy.folder)
            output, title = stage.work / folder, stage.name.replace("_", " ")
            reference = self._open_reference()
            result = align(config, trees, self._model, reference, output, title=title)
            stage.finish(
                [f"{folder}/{name}" for name in ("adapter", "metrics.jsonl", "timing.jsonl")],
                {"steps": result.n_steps, "stopped_early": int(result.stopped_early)},
            )
        self._trained.append(_Saved.of(stage, f"{folder}/adapter"))
        return stage

    def _open_reference(self) -> LiveReference:
        """Put the round's reference on the model, beside the adapter that trains."""
        if self._recipe.reference == "base":
            return BaseReference(self._model, weights=lambda: self._base)
        folder = self._reference.folder
        restore_adapter(self._model, folder, name=_REFERENCE)
        return LiveReference(self._model, _REFERENCE, f"{folder}", weights=lambda: self._base)

    def _evaluate(self, number: int) -> Mapping[str, int | float]:
        """Measure the policy as it was trained."""
        if self._evaluation is None:
            return {}
        trained = self._trained[-1]
        stage = self._run.stage(
            f"evaluate_{number}",
            {"base": self._base, "trained": trained.hash, "measure": self._evaluation.identity},
        )
        if stage.is_due:
            restore_adapter(self._model, trained.folder)
            with torch.no_grad(), evaluating(self._model):
                stage.finish([], self._evaluation.measure(self._model))
        return stage.record.counts

    def _promote(self, number: int) -> Stage:
        """Write what the next round starts from, and its reference."""
        promotion, rule = self._recipe.promotion, self._recipe.reference
        *earlier, trained = self._trained
        output, moved = f"round_{number}/policy", f"round_{number}/reference"
        inputs = {
            "trained": trained.hash,
            "earlier": hash_json([each.hash for each in earlier]),
            "promotion": promotion.identity,
            "reference": f"{rule.decay} {self._reference.hash}" if isinstance(rule, Ema) else rule,
        }
        stage = self._run.stage(f"promote_{number}", inputs)
        if stage.is_due:
            restore_adapter(self._model, trained.folder)
            counts = promotion.promote(self._model, [each.folder for each in earlier])
            save_adapter(self._model, stage.work / output)
            warn_unservable(stage.work / output)
            if isinstance(rule, Ema):
                restore_adapter(self._model, self._reference.folder, name=_REFERENCE)
                mix_adapter(self._model, POLICY_ADAPTER, _REFERENCE, decay=rule.decay)
                save_adapter(self._model, stage.work / moved, name=_REFERENCE)
            stage.finish([output, moved] if isinstance(rule, Ema) else [output], counts)
        self.policy = _Saved.of(stage, output)
        self._reference = _Saved.of(stage, moved) if isinstance(rule, Ema) else self.policy
        return stage
