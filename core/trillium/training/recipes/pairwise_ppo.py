"""P3O: a policy gradient on the difference of two samples, without a value function."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from peft import PeftModel
from pydantic import Field
from torch import Tensor

from trillium.generation.interface import Generator
from trillium.objectives.recipe_configs import P3OConfig
from trillium.objectives.rollouts import p3o
from trillium.policies.adapters import POLICY_ADAPTER
from trillium.scoring.reference import LiveReference
from trillium.scoring.scores import score
from trillium.training.adapter_loop import BatchRows
from trillium.training.inputs import as_pairs
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
from trillium.training.recipes.recipe import Judge
from trillium.training.round_rows import Candidates, Prompt
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree


class PairwiseConfig(OnlineConfig):
    """Choose how P3O draws and learns."""

    objective: P3OConfig = Field(default=P3OConfig(), description="how ratios are clipped")
    kl_coef: float = Field(default=0.05, ge=0, description="weight of the distance in the reward")


def train_pairwise(
    config: PairwiseConfig,
    prompts: Sequence[Prompt],
    model: PeftModel,
    generator: Generator,
    judge: Judge,
    output: Path,
) -> OnlineResult:
    """Train P3O, pairwise proximal policy optimisation (arXiv 2310.00212).

    Every prompt is answered twice; each answer earns score - kl_coef * log(policy / start), and
    only the difference of the two counts, so that a judge may add anything to all answers of a
    prompt. The reference is the adapter that `model` comes with; in the end it holds the new one.
    """
    method = _Pairwise(model, take_reference(model), config)
    return train_online(config, method, prompts, model, generator, output, judge=judge, title="p3o")


class _Pairwise:
    """Two samples of each prompt, and how much better the first is."""

    identity = "p3o"  # all that is configured is part of the loop's configuration
    draws = (Draw(POLICY_ADAPTER, 2),)

    def __init__(self, model: PeftModel, reference: LiveReference, config: PairwiseConfig) -> None:
        self._model, self._reference, self._config = model, reference, config

    def learners(self) -> tuple[Learner, ...]:
        return (policy_learner(self._model, self._config.learning_rate),)

    def build(self, candidates: Candidates) -> list[TokenTree]:
        paths = [candidates.path(index) for index in range(2)]
        labels = {"score": candidates.scores}
        return [TokenTree.from_paths(candidates.prompt.id, paths, labels=labels)]

    def observe(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> list[TokenTree]:
        def measure(rows: TreeBatch) -> dict[str, Float[Tensor, " path"]]:
            old = score(self._model, rows).logps
            return {"old": old, "logratio": old - self._reference.logps(rows)}

        return label_paths(trees, batch_rows, measure)

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        config, total, distance = self._config.objective, 0.0, 0.0
        for rows in batch_rows(trees):
            policy, old, scores, logratios = (
                as_pairs(rows, each, None)
                for each in (
                    score(self._model, rows).logps,
                    rows.labels["old"],
                    rows.labels["score"],
                    rows.labels["logratio"],
                )
            )
            # Scores are subtracted first: what both have in common cancels to the last bit.
            gain = scores.chosen - scores.rejected
            gain = gain - self._config.kl_coef * (logratios.chosen - logratios.rejected)
            losses = p3o(
                policy.chosen,
                policy.rejected,
                old_first=old.chosen,
                old_second=old.rejected,
                reward_first=gain,
                reward_second=torch.zeros_like(gain),
                variant=config.variant,
                eps=config.eps,
                delta=config.delta,
            )
            loss = losses.sum() / len(trees)
            torch.autograd.backward([loss])
            total += loss.item()
            distance += rows.labels["logratio"].sum().item() / (2 * len(trees))
        return {"loss": total, "kl": distance}

    def save(self, folder: Path) -> None:
        return None

    def load(self, folder: Path) -> None:
        return None
