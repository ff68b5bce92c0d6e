"""XPO: online DPO that is paid for leaving what the reference already writes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import Field

from trillium.files import hash_json
from trillium.generation.interface import Generator
from trillium.objectives.companions import xpo
from trillium.objectives.recipe_configs import XPOConfig
from trillium.policies.adapters import POLICY_ADAPTER
from trillium.scoring.reference import LiveReference
from trillium.scoring.scores import score
from trillium.training.adapter_loop import BatchRows
from trillium.training.inputs import as_pairs
from trillium.training.online import (
    REFERENCE_ADAPTER,
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
from trillium.training.round_rows import Candidates, Prompt, read_trees, write_trees
from trillium.trees import TokenTree

_PAIRS = "pairs.jsonl"
_REFERENCE_WON = "reference_is_chosen"


class ExplorationConfig(OnlineConfig):
    """Choose how XPO draws and learns; the paper runs three iterations over many prompts."""

    n_iterations: int = Field(default=3, gt=0, description="draws and updates, one by one")
    prompts_per_iteration: int = Field(default=1024, gt=0, description="prompts of one draw")
    objective: XPOConfig = Field(default=XPOConfig(), description="DPO and the bonus")


def train_exploration(
    config: ExplorationConfig,
    prompts: Sequence[Prompt],
    model: PeftModel,
    generator: Generator,
    judge: Judge,
    output: Path,
) -> OnlineResult:
    """Train XPO, exploratory preference optimisation (arXiv 2405.21046, Alg. 1).

    Every prompt is answered by the policy and by the reference, the adapter that `model` comes
    with; the better score is preferred. As in the algorithm, an iteration trains on the pairs of
    all iterations so far. With alpha = 0 this is online DPO.
    Reading: equal scores are settled by the toss of a fair coin, which is what a Bradley-Terry
    oracle does; the released trainers let the policy win.
    """
    method = _Exploration(model, take_reference(model), config)
    return train_online(config, method, prompts, model, generator, output, judge=judge, title="xpo")


class _Exploration:
    """A sample of the policy against one of the reference, and all such pairs so far."""

    identity = "xpo"  # all that is configured is part of the loop's configuration
    draws = (Draw(POLICY_ADAPTER, 1), Draw(REFERENCE_ADAPTER, 1))

    def __init__(
        self, model: PeftModel, reference: LiveReference, config: ExplorationConfig
    ) -> None:
        self._model, self._reference, self._config = model, reference, config
        self._pairs: list[TokenTree] = []

    def learners(self) -> tuple[Learner, ...]:
        return (policy_learner(self._model, self._config.learning_rate),)

    def build(self, candidates: Candidates) -> list[TokenTree]:
        of_policy, of_reference = candidates.scores
        reference_won = of_reference > of_policy
        if of_reference == of_policy:
            texts = [list(completion.ids) for completion in candidates.completions]
            reference_won = int(hash_json([candidates.prompt.id, texts]), 16) % 2 == 1
        chosen, rejected = (1, 0) if reference_won else (0, 1)
        return [candidates.pair(chosen, rejected, {_REFERENCE_WON: float(reference_won)})]

    def observe(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> list[TokenTree]:
        fresh = label_paths(
            trees, batch_rows, lambda rows: {"reference": self._reference.logps(rows)}
        )
        # A prompt comes again in a later iteration, and no two pairs may share a name.
        first = len(self._pairs)
        self._pairs += [replace(each, id=f"{first + n}/{each.id}") for n, each in enumerate(fresh)]
        return self._pairs

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        config, total, right = self._config.objective, 0.0, 0
        for rows in batch_rows(trees):
            policy = as_pairs(rows, score(self._model, rows).logps, None)
            reference = as_pairs(rows, rows.labels["reference"], None)
            is_reference = rows.columns[_REFERENCE_WON] > 0.5
            losses = xpo(
                policy,
                reference,
                reference_sample=torch.where(is_reference, policy.chosen, policy.rejected),
                beta=config.beta,
                alpha=config.alpha,
            )
            loss = losses.sum() / len(trees)
            torch.autograd.backward([loss])
            total += loss.item()
            u = policy.against(reference)
            right += int((u.chosen > u.rejected).sum())
        return {"loss": total, "rewards/accuracies": right / len(trees)}

    def save(self, folder: Path) -> None:
        write_trees(folder / _PAIRS, self._pairs)

    def load(self, folder: Path) -> None:
        self._pairs = read_trees(folder / _PAIRS)
