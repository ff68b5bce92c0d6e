"""What objectives receive: log-probabilities by path, and what each objective declares it needs.

Objectives see no trees, models or configuration files. A field that an objective did not declare
is never filled, so it cannot be read by accident.
"""

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from trillium.errors import ShapeError


@dataclass(frozen=True)
class PairLogps:
    """Hold one model's log-probabilities of chosen and rejected responses.

    Sums over scored tokens, in nats. The counts of scored tokens are there only for objectives that
    declare `lengths`.
    """

    chosen: Float[Tensor, " pair"]
    rejected: Float[Tensor, " pair"]
    n_chosen: Int[Tensor, " pair"] | None = None
    n_rejected: Int[Tensor, " pair"] | None = None

    def __post_init__(self) -> None:
        """Raise ShapeError when there is not one rejected response for each chosen one."""
        if self.chosen.shape != self.rejected.shape:
            raise ShapeError(
                f"pairs: {self.chosen.numel()} chosen and {self.rejected.numel()} rejected "
                "responses (needs one rejected for each chosen); pass both sides of every pair"
            )

    def against(self, reference: "PairLogps | None") -> "PairLogps":
        """Return the log-ratios to a reference; without one, the log-probabilities themselves."""
        if reference is None:
            return self
        n_pairs, n_reference = self.chosen.numel(), reference.chosen.numel()
        if n_pairs != n_reference:
            raise ShapeError(
                f"policy has {n_pairs} pairs, reference has {n_reference}; "
                "both must come from the same batch"
            )
        return replace(
            self,
            chosen=self.chosen - reference.chosen,
            rejected=self.rejected - reference.rejected,
        )

    def per_token(self) -> "PairLogps":
        """Return means per scored token in place of sums."""
        if self.n_chosen is None or self.n_rejected is None:
            raise ShapeError(
                "per_token: the counts of scored tokens are missing (n_chosen, n_rejected); "
                "pass them with the log-probabilities"
            )
        return replace(
            self, chosen=self.chosen / self.n_chosen, rejected=self.rejected / self.n_rejected
        )


@dataclass(frozen=True)
class SingleLogps:
    """Hold one model's log-probabilities of unpaired responses, sums over scored tokens in nats."""

    logps: Float[Tensor, " row"]
    lengths: Int[Tensor, " row"] | None = None


@dataclass(frozen=True)
class ListLogps:
    """Hold one model's log-probabilities of ranked responses, list after list.

    Lists may differ in length. `group` names the list of each response: 0, 1, 2, ... Sums over
    scored tokens, in nats.
    """

    logps: Float[Tensor, " response"]
    group: Int[Tensor, " response"]
    lengths: Int[Tensor, " response"] | None = None

    @property
    def n_lists(self) -> int:
        """Count the lists."""
        return int(self.group.max()) + 1


@dataclass(frozen=True)
class ListSteps:
    """Hold one model's log-probabilities of the steps of ranked responses, means over their tokens.

    Shorter responses are padded with steps of weight zero.
    """

    logps: Float[Tensor, "response step"]
    group: Int[Tensor, " response"]

    @property
    def n_lists(self) -> int:
        """Count the lists."""
        return int(self.group.max()) + 1


@dataclass(frozen=True)
class PairTokens:
    """Hold one statistic of every token of chosen and rejected responses.

    It is zero where no token is scored. The statistic is a log-probability, a divergence from the
    reference, or a weight.
    """

    chosen: Float[Tensor, "pair chosen_token"]
    rejected: Float[Tensor, "pair rejected_token"]


@dataclass(frozen=True)
class SideStream:
    """Hold completions of the original model that the policy should go on producing.

    `logps` are the policy's sums over scored tokens and `lengths` their counts. `kl` is the sum
    over scored tokens of D(original || policy), both at the temperature of the distillation; it is
    there only where a part of the loss distils.
    """

    logps: Float[Tensor, " row"]
    lengths: Int[Tensor, " row"]
    kl: Float[Tensor, " row"] | None = None


Shape = Literal["pair", "single", "list", "steps", "pair_token", "token", "rollout", "embedding"]


@dataclass(frozen=True)
class Needs:
    """Declare what an objective reads; the trainer runs the forwards that follow, and no others.

    The shape is that of the log-probabilities: PairLogps, SingleLogps, ListLogps, ListSteps,
    PairTokens, or a row of numbers per token; `rollout` and `embedding` come from recipes alone.
    With `logratios` they arrive as one argument, policy minus reference.

    `mismatched`: responses paired with other prompts, for KTO's estimate of the KL. `batch_tokens`:
    the mean number of chosen tokens per pair over the whole optimizer batch. `labels` are values
    per path, `columns` values per tree; both arrive as keyword tensors of the same name. `paths`
    names the responses of a row beyond those of its shape. `prompts`: prompts are scored too.
    `computed` are arguments that the trainer makes of further paths, single tokens, hidden states,
    trained heads and the columns `behind`. `further` are inputs that only a recipe can supply.
    """

    shape: Shape
    reference: bool = False
    lengths: bool = False
    mismatched: bool = False
    batch_tokens: bool = False
    logratios: bool = False
    prompts: bool = False
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
