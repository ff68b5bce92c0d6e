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
    path_tokens: tuple[int, ...]
    kl: Float[Tensor, ""] | None

    @property
    def tokens_per_path(self) -> tuple[float, ...]:
        """Return the mean number of scored tokens of the first path, the second, and so on."""
        return tuple(count / self.n_trees for count in self.path_tokens)


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
