"""PPO on the token rewards of a DPO model: the second half of RTO, with its value function.

The critic is an adapter on the policy's own base with a value head, so learning values moves no
log-probability. Both halves are learners of the online loop, saved and resumed with it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from peft import PeftModel
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trillium.objectives.ppo import ppo_policy, ppo_value, whiten
from trillium.objectives.recipe_configs import RTOConfig
from trillium.objectives.rollouts import rto
from trillium.policies.adapters import (
    POLICY_ADAPTER,
    adapter_digest,
    adapter_parameters,
    copy_adapter,
)
from trillium.scoring.forward import hidden_at_slots, open_model
from trillium.scoring.reference import LiveReference
from trillium.scoring.scores import count_scored, pad_paths, score, scored_places
from trillium.training.adapter_loop import BatchRows, through_adapter
from trillium.training.heads import LinearHead
from trillium.training.online import Draw, Learner, OnlineConfig, policy_learner
from trillium.training.round_rows import Candidates
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree

ALIGNED_ADAPTER = "aligned"
CRITIC_ADAPTER = "critic"


class TokenPPOConfig(OnlineConfig):
    """Choose how PPO draws and learns."""

    objective: RTOConfig = Field(default=RTOConfig(), description="rewards and advantages")
    n_samples: int = Field(default=1, gt=0, description="completions of a prompt")
    clip: float = Field(default=0.2, gt=0, lt=1, description="clip of a token's ratio")
    value_clip: float = Field(default=0.2, gt=0, description="clip of a value's change")
    critic_learning_rate: float = Field(default=9e-5, gt=0, description="of the value function")


class TokenPPO:
    """The policy and its critic; adapter `aligned` is on the model already."""

    def __init__(self, model: PeftModel, reference: LiveReference, config: TokenPPOConfig) -> None:
        """Let the critic begin as a copy of the policy, with values of zero."""
        self._model, self._reference, self._config = model, reference, config
        self._aligned = LiveReference(model, ALIGNED_ADAPTER, "the DPO model")
        self.identity = f"rto by {adapter_digest(model, ALIGNED_ADAPTER)}"
        self.draws = (Draw(POLICY_ADAPTER, config.n_samples),)
        copy_adapter(model, POLICY_ADAPTER, CRITIC_ADAPTER)
        width = getattr(open_model(model).config, "hidden_size", None)
        assert isinstance(width, int)
        self._head = LinearHead(width, n_outputs=1).to(model.device)
        self._drawn: dict[str, list[Float[Tensor, "token 4"]]] = {}
        self._distance, self._tokens_per_step = 0.0, 1.0

    def learners(self) -> tuple[Learner, ...]:
        """Return the policy, and the critic with its head."""
        head = {f"head.{name}": entry for name, entry in self._head.named_parameters()}
        critic = {**adapter_parameters(self._model, CRITIC_ADAPTER), **head}
        return (
            policy_learner(self._model, self._config.learning_rate),
            Learner("critic", critic, self._config.critic_learning_rate),
        )

    def build(self, candidates: Candidates) -> list[TokenTree]:
        """Return all completions of a prompt as one tree."""
        paths = [candidates.path(index) for index in range(len(candidates.completions))]
        labels = {"score": candidates.scores}
        return [TokenTree.from_paths(candidates.prompt.id, paths, labels=labels)]

    @torch.no_grad()
    def observe(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Sequence[TokenTree]:
        """Keep old log-probabilities, values, standardised advantages and returns of each token."""
        self._drawn, distance = {}, 0.0
        for rows in batch_rows(trees):
            old = pad_paths(score(self._model, rows).token["logp"], rows)
            reference = pad_paths(self._reference.token_logps(rows), rows)
            values = pad_paths(self._estimate(rows), rows)
            targets = rto(
                pad_paths(self._aligned.token_logps(rows), rows),
                old,
                reference,
                scored=scored_places(rows),
                reward=rows.labels["score"],
                values=values,
                **self._config.objective.model_dump(exclude={"name"}),
            )
            four = torch.stack([old, values, targets.advantages, targets.returns], dim=-1)
            sizes = count_scored(rows).tolist()
            for tree, tokens, size in zip(rows.path_tree.tolist(), four, sizes, strict=True):
                self._drawn.setdefault(rows.tree_ids[tree], []).append(tokens[:size])
            distance += (old - reference).sum().item()
        every = [tokens for paths in self._drawn.values() for tokens in paths]
        whitened = whiten(torch.cat([tokens[:, 2] for tokens in every]))
        for tokens, part in zip(every, whitened.split_with_sizes([*map(len, every)]), strict=True):
            tokens[:, 2] = part
        self._distance = distance / len(every)
        n_steps = math.ceil(len(trees) / self._config.trees_per_step)
        self._tokens_per_step = sum(map(len, every)) / n_steps
        return trees

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        """Add the gradients of both losses, means over the completions of the step."""
        config, n_paths = self._config, sum(tree.n_paths for tree in trees)
        totals = {"loss_policy": 0.0, "loss_value": 0.0, "clipped": 0.0}
        for rows in batch_rows(trees):
            scored = scored_places(rows)
            drawn = [tokens for id in rows.tree_ids for tokens in self._drawn[id]]
            old, values, advantages, returns = pad_sequence(drawn, batch_first=True).unbind(-1)
            logps = pad_paths(score(self._model, rows).token["logp"], rows)
            losses = ppo_policy(
                logps, old=old, advantages=advantages, scored=scored, clip=config.clip
            )
            loss = losses.sum() / n_paths
            torch.autograd.backward([loss])
            estimates = pad_paths(self._estimate(rows), rows)
            value_losses = ppo_value(
                estimates, old=values, returns=returns, scored=scored, clip=config.value_clip
            )
            value_loss = value_losses.sum() / n_paths
            torch.autograd.backward([value_loss])
            outside = ((logps.detach() - old).expm1().abs() > config.clip) & scored
            totals["loss_policy"] += loss.item()
            totals["loss_value"] += value_loss.item()
            # Steps differ in tokens; the mean over them is the share of the iteration's tokens.
            totals["clipped"] += outside.sum().item() / self._tokens_per_step
        return {**totals, "kl": self._distance}

    def save(self, folder: Path) -> None:
        """Write nothing: both learners are saved by the loop, and the rest is drawn anew."""

    def load(self, folder: Path) -> None:
        """Read nothing."""

    def _estimate(self, rows: TreeBatch) -> Float[Tensor, " slot"]:
        """Return the critic's value before each scored token."""
        with through_adapter(self._model, CRITIC_ADAPTER):
            values: Tensor = self._head(hidden_at_slots(open_model(self._model), rows))
        return values[:, 0]
