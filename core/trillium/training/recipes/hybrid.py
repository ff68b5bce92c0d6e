"""HyPO: DPO on offline pairs, while samples of the policy hold it near the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import Field, model_validator

from trillium.errors import DataError
from trillium.generation.interface import Generator
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo
from trillium.objectives.recipe_configs import HyPOConfig
from trillium.objectives.rollouts import hypo
from trillium.policies.adapters import POLICY_ADAPTER
from trillium.scoring.reference import LiveReference
from trillium.scoring.scores import score
from trillium.training.adapter_loop import BatchRows
from trillium.training.online import (
    Draw,
    Learner,
    OnlineConfig,
    OnlineResult,
    label_paths,
    policy_learner,
    take_reference,
)
from trillium.training.online_loop import train_online
from trillium.training.round_rows import Candidates, Prompt, hash_trees
from trillium.trees import TokenPath, TokenTree


class HybridConfig(OnlineConfig):
    """Choose how HyPO draws and learns: one step per iteration, because samples must be fresh."""

    objective: HyPOConfig = Field(
        default=HyPOConfig(rloo=True), description="DPO, and the weight of the divergence"
    )
    n_samples: int = Field(default=2, gt=0, description="completions of a pair's prompt")
    prompts_per_iteration: int = Field(default=8, gt=0, description="pairs of one step")
    trees_per_step: int = Field(default=8, gt=0, description="no less than the pairs of one step")
    save_steps: int = Field(default=50, gt=0, description="iterations between checkpoints")

    @model_validator(mode="after")
    def _needs_fresh_samples(self) -> "HybridConfig":
        if self.num_train_epochs > 1 or self.trees_per_step < self.prompts_per_iteration:
            raise ValueError(
                "hypo learns from every sample once, before the policy moves (needs "
                "num_train_epochs = 1 and trees_per_step >= prompts_per_iteration); correct them"
            )
        if self.objective.rloo and self.n_samples < 2:
            raise ValueError(
                "objective.rloo compares a sample with the others of its prompt (needs n_samples "
                "of 2 or more); draw more, or set objective.rloo=false"
            )
        return self


def train_hybrid(
    config: HybridConfig,
    pairs: Sequence[TokenTree],
    model: PeftModel,
    generator: Generator,
    output: Path,
) -> OnlineResult:
    """Train HyPO, hybrid preference optimisation (arXiv 2406.01462).

    Each step takes pairs, draws completions of their prompts from the policy, and adds the gradient
    of KL(policy || reference) that these estimate to that of DPO. Nobody judges the completions.
    The reference is the adapter that `model` comes with.
    Raises DataError for trees that are no pairs of one prompt.
    """
    method = _Hybrid(model, take_reference(model), config, pairs)
    prompts = [prompt_of(tree) for tree in pairs]
    return train_online(config, method, prompts, model, generator, output, title="hypo")


def prompt_of(pair: TokenTree) -> Prompt:
    """Return what both responses of a pair answer: the tokens before the first scored one."""
    prompts = {_unscored_start(pair.path(index)) for index in range(pair.n_paths)}
    if pair.n_paths != 2 or len(prompts) != 1:
        raise DataError(
            f"tree {pair.id}: has {pair.n_paths} responses to {len(prompts)} prompts (hypo needs "
            "pairs of a chosen and a rejected response to one prompt); convert the rows"
        )
    return Prompt(pair.id, prompts.pop())


def _unscored_start(path: TokenPath) -> tuple[int, ...]:
    return path.ids[: path.scored.index(True)] if any(path.scored) else path.ids


class _Hybrid:
    """A pair and fresh samples of its prompt, as the paths of one tree."""

    def __init__(
        self,
        model: PeftModel,
        reference: LiveReference,
        config: HybridConfig,
        pairs: Sequence[TokenTree],
    ) -> None:
        self._model, self._reference, self._config = model, reference, config
        self._pairs = {pair.id: pair for pair in pairs}
        self.identity = f"hypo on {hash_trees(pairs)}"
        self.draws = (Draw(POLICY_ADAPTER, config.n_samples),)

    def learners(self) -> tuple[Learner, ...]:
        return (policy_learner(self._model, self._config.learning_rate),)

    def build(self, candidates: Candidates) -> list[TokenTree]:
        pair = self._pairs[candidates.prompt.id]
        samples = [candidates.path(index) for index in range(len(candidates.completions))]
        return [TokenTree.from_paths(pair.id, [pair.path(0), pair.path(1), *samples])]

    def observe(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> list[TokenTree]:
        return label_paths(
            trees, batch_rows, lambda rows: {"reference": self._reference.logps(rows)}
        )

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        config, total, distance, right = self._config.objective, 0.0, 0.0, 0
        for rows in batch_rows(trees):
            logps = score(self._model, rows).logps.reshape(rows.n_trees, -1)
            fixed = rows.labels["reference"].reshape(rows.n_trees, -1)
            policy, reference = (PairLogps(each[:, 0], each[:, 1]) for each in (logps, fixed))
            losses = hypo(
                policy,
                reference,
                policy_sample=logps[:, 2:],
                reference_sample=fixed[:, 2:],
                beta=config.beta,
                lam=config.lam,
                rloo=config.rloo,
            )
            loss = losses.sum() / len(trees)
            torch.autograd.backward([loss])
            # The value of the other term means nothing, only its gradient does.
            total += dpo(policy, reference, beta=config.beta).sum().item() / len(trees)
            distance += (logps - fixed)[:, 2:].mean(1).sum().item() / len(trees)
            u = policy.against(reference)
            right += int((u.chosen > u.rejected).sum())
        return {"loss_dpo": total, "kl": distance, "rewards/accuracies": right / len(trees)}

    def save(self, folder: Path) -> None:
        return None

    def load(self, folder: Path) -> None:
        return None
