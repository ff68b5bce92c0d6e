"""What an online method is: who writes, what is built of it, what is minimised, and who learns.

Only the words; `online_loop.train_online` acts on them, and the methods themselves are in
`recipes/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from peft import PeftModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from trillium.config import Seed
from trillium.policies.adapters import POLICY_ADAPTER, adapter_parameters, copy_adapter
from trillium.scoring.reference import LiveReference
from trillium.training.adapter_loop import BatchRows
from trillium.training.config import GradNorm
from trillium.training.round_rows import Candidates
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree

REFERENCE_ADAPTER = "reference"
"""A frozen copy of the adapter that an online method starts from."""


class OnlineConfig(BaseModel):
    """Choose how much is drawn, and how it is learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n_iterations: int = Field(default=100, gt=0, description="draws and updates, one by one")
    prompts_per_iteration: int = Field(default=32, gt=0, description="prompts of one draw")
    max_new_tokens: int = Field(default=256, gt=0, description="tokens per completion, at most")
    num_train_epochs: int = Field(default=1, gt=0, description="passes over what was drawn")
    trees_per_step: int = Field(default=8, gt=0, description="trees of one optimizer step")
    learning_rate: float = Field(default=1e-5, gt=0, description="of the policy, constant")
    max_grad_norm: GradNorm = Field(default=1.0, description="gradient norm to clip to")
    micro_tokens: int = Field(
        default=1024, gt=0, description="tokens in memory at once; changes no gradient"
    )
    save_steps: int = Field(default=1, gt=0, description="iterations between checkpoints")
    seed: Seed = Field(default=0, description="prompts, samples and order of the trees")


@dataclass(frozen=True)
class Draw:
    """Say which adapter writes how many completions of each prompt."""

    adapter: str
    n_samples: int


@dataclass(frozen=True)
class Learner:
    """Hold parameters that learn at one rate and are clipped together."""

    name: str
    entries: Mapping[str, nn.Parameter]
    learning_rate: float


@runtime_checkable
class OnlineMethod(Protocol):
    """What an online method draws, and what it minimises."""

    @property
    def identity(self) -> str:
        """Name the method and what it computes with beside policy and configuration."""
        ...

    @property
    def draws(self) -> tuple[Draw, ...]:
        """Say who writes; the completions of a prompt come in this order."""
        ...

    def learners(self) -> tuple[Learner, ...]:
        """Return what learns: the policy first."""
        ...

    def build(self, candidates: Candidates) -> Sequence[TokenTree]:
        """Return the trees of one prompt, possibly none; scores are 0 where nobody judges."""
        ...

    def observe(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Sequence[TokenTree]:
        """Measure fresh trees before the policy moves; returns the trees to train on."""
        ...

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        """Add the gradients of one optimizer step; returns what to record of it."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is remembered between iterations beside the learners."""
        ...

    def load(self, folder: Path) -> None:
        """Go back to what `save` wrote."""
        ...


@dataclass(frozen=True)
class OnlineResult:
    """Say where the adapter is; `metrics` holds one row per iteration.

    `score` and `tokens` are means over the policy's completions, before the iteration's updates.
    """

    adapter: Path
    metrics: tuple[dict[str, int | float], ...]


def take_reference(model: PeftModel) -> LiveReference:
    """Freeze a copy of the policy's adapter as it is now, and refer to it."""
    copy_adapter(model, POLICY_ADAPTER, REFERENCE_ADAPTER)
    return LiveReference(model, REFERENCE_ADAPTER, "the adapter that training starts from")


def policy_learner(model: PeftModel, learning_rate: float) -> Learner:
    """Return the policy's own adapter as a learner."""
    return Learner("policy", adapter_parameters(model), learning_rate)


@torch.no_grad()
def label_paths(
    trees: Sequence[TokenTree],
    batch_rows: BatchRows,
    measure: Callable[[TreeBatch], Mapping[str, Float[Tensor, " path"]]],
) -> list[TokenTree]:
    """Return the trees with what `measure` says of each path among their labels."""
    labels: dict[str, dict[str, tuple[float, ...]]] = {}
    for rows in batch_rows(trees):
        n_paths = rows.path_tree.bincount().tolist()
        for name, values in measure(rows).items():
            for id, part in zip(rows.tree_ids, values.split_with_sizes(n_paths), strict=True):
                labels.setdefault(id, {})[name] = tuple(part.tolist())
    return [replace(tree, labels={**tree.labels, **labels[tree.id]}) for tree in trees]
