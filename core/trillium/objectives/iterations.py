"""What iterative recipes compute between or beside training steps.

Which pairs come first, which candidates are kept, where the next policy starts, and how two
adapters chase each other. The losses that the recipes minimise live in the other modules.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from trillium.errors import DataError
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo


@dataclass(frozen=True)
class CurriculumPair:
    """Hold one pair of a curriculum by index of its responses, and how far apart they are."""

    chosen: int
    rejected: int
    gap: float


def curry_dpo(
    ratings: Float[Tensor, " response"],
    *,
    order: Literal["easy_to_hard", "hard_to_easy"] = "easy_to_hard",
) -> tuple[CurriculumPair, ...]:
    """Return the curriculum of one prompt: the best response against each other (arXiv 2403.07230).

    Pairs with a large gap are easy. A response rated like the best makes no pair. `ratings` may
    also be log-probabilities of the reference. Train DPO in this order, one stage per position;
    the iterated form moves the reference to the model of the previous stage.
    Raises DataError for a rating that is not finite: no gap to it could be ordered.
    """
    if not torch.isfinite(ratings).all():
        raise DataError(
            f"curry_dpo: the ratings are {ratings.tolist()} (needs finite numbers); correct them"
        )
    best = int(ratings.argmax())
    gaps = (ratings[best] - ratings).tolist()
    pairs = [CurriculumPair(best, other, gap) for other, gap in enumerate(gaps) if gap > 0]
    return tuple(sorted(pairs, key=lambda pair: pair.gap, reverse=order == "easy_to_hard"))


def rso_acceptance(
    rewards: Float[Tensor, " candidate"], *, beta: float = 0.5
) -> Float[Tensor, " candidate"]:
    """Return the probability that each remaining candidate is accepted in one pass.

    exp((reward - largest reward) / beta)
    """
    return ((rewards - rewards.max()) / beta).exp()


def rso(
    rewards: Float[Tensor, " candidate"],
    uniforms: Float[Tensor, " draw"],
    *,
    n_samples: int = 8,
    beta: float = 0.5,
) -> tuple[int, ...]:
    """Return which candidates statistical rejection sampling keeps (arXiv 2309.06657, Alg. 1).

    Passes over the remaining candidates repeat; the largest reward is that of the candidates left
    at the start of a pass, and each visit uses one number of `uniforms`. Works on indices, so
    equal texts stay distinct. The kept candidates are ranked in pairs and trained with `hinge` or
    `dpo`.
    Raises DataError when more are asked for than there are, or the uniforms run out.
    """
    if n_samples > len(rewards):
        raise DataError(
            f"rso: {n_samples} samples of {len(rewards)} candidates (at most as many as there are);"
            " sample more candidates"
        )
    draws = iter(uniforms.tolist())
    kept: list[int] = []
    while len(kept) < n_samples:
        left = [index for index in range(len(rewards)) if index not in kept]
        accept = rso_acceptance(rewards[left], beta=beta).tolist()
        for index, probability in zip(left, accept, strict=True):
            draw = next(draws, None)
            if draw is None:
                raise DataError(
                    f"rso: {len(uniforms)} uniforms were used up with {len(kept)} of {n_samples} "
                    "samples kept; pass more"
                )
            if draw < probability:
                kept.append(index)
            if len(kept) == n_samples:
                break
    return tuple(kept)


def apo_accelerated(
    current: Float[Tensor, "*shape"], previous: Float[Tensor, "*shape"], *, alpha: float = 0.3
) -> Float[Tensor, "*shape"]:
    """Return the extrapolated parameters of accelerated preference optimisation (arXiv 2410.06293).

        next = current + alpha * (current - previous)

    Both are results of a preference step; the first step has no predecessor and is not
    extrapolated. Applied to each parameter or adapter weight; reset the optimizer afterwards.
    Reading: the paper moves distributions (`extrapolated_policy`), this is its parameter form.
    """
    return current + alpha * (current - previous)


def extrapolated_policy(
    current: Float[Tensor, "*context vocab"],
    previous: Float[Tensor, "*context vocab"],
    *,
    alpha: float = 0.3,
) -> Float[Tensor, "*context vocab"]:
    """Return the same step on log-probabilities: current^(1+alpha) / previous^alpha, normalised."""
    return apo_accelerated(current, previous, alpha=alpha).log_softmax(-1)


def ofs_dpo(
    fast: PairLogps,
    slow: PairLogps,
    reference: PairLogps,
    *,
    beta: float = 0.1,
    alpha: float = 0.1,
) -> Float[Tensor, " pair"]:
    """Score each pair for a fast and a slow adapter that chase each other (arXiv 2406.05534).

        chase = -ls(beta * ((S^F_w - S^F_l) - (S^S_w - S^S_l)))
        loss  = (dpo(fast) + alpha * chase) + (dpo(slow) - alpha * chase)

    In each bracket the other adapter is held still, so the sum trains both at once. `fast` is the
    one with the lower DPO loss now; roles swap. The slow bracket has no lower bound: keep alpha
    small.
    Reading: taken from a third party's code that cites Eq. 3 to 6 of the paper.
    """
    losses = ofs_losses(fast, slow, reference, beta=beta, alpha=alpha)
    return losses.fast + losses.slow


@dataclass(frozen=True)
class FastSlowLosses:
    """Hold the losses of the two adapters, one number per pair."""

    fast: Float[Tensor, " pair"]
    slow: Float[Tensor, " pair"]


def ofs_losses(
    fast: PairLogps, slow: PairLogps, reference: PairLogps, *, beta: float, alpha: float
) -> FastSlowLosses:
    """Return the two brackets of `ofs_dpo`."""
    fast_gap, slow_gap = fast.chosen - fast.rejected, slow.chosen - slow.rejected
    # Each adapter moves relative to where the other one stands.
    fast_chase = -logsigmoid(beta * (fast_gap - slow_gap.detach()))
    slow_chase = -logsigmoid(beta * (fast_gap.detach() - slow_gap))
    return FastSlowLosses(
        fast=dpo(fast, reference, beta=beta) + alpha * fast_chase,
        slow=dpo(slow, reference, beta=beta) - alpha * slow_chase,
    )
