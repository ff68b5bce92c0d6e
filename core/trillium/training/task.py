"""What a trainer is given, and what the losses of one optimizer step share."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from trillium.objectives.configs import ObjectiveConfig
from trillium.scoring.reference import ReferenceProvider
from trillium.training.config import Order
from trillium.training.steps import Sample, StepCollator


@dataclass(frozen=True)
class StepTotals:
    """Hold what the losses of one optimizer step share, counted over all processes.

    `kl` is KTO's reference point z0, there only for objectives that need it.
    """

    n_trees: int
    n_tokens: int
    n_chosen_tokens: int
    kl: Float[Tensor, ""] | None

    @property
    def tokens_per_pair(self) -> float:
        """Return the mean number of scored tokens of a chosen response."""
        return self.n_chosen_tokens / self.n_trees


@dataclass(frozen=True)
class Task:
    """Say what a trainer trains on: samples, objective, reference and how they are batched.

    `identity` names data and configuration; a checkpoint of another identity is never continued.
    `starts_at_reference` claims that policy and reference agree before the first step.
    """

    samples: Sequence[Sample]
    held_out: Sequence[Sample]
    objective: ObjectiveConfig
    reference: ReferenceProvider | None
    collator: StepCollator
    order: Order
    identity: str
    keep_checkpoints: int
    starts_at_reference: bool
