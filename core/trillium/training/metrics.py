"""What a step reports about responses, and how it is averaged. Nothing here enters a loss.

The names are TRL's, so that existing dashboards read them: rewards, margins, accuracies and
log-probabilities of both sides. `margin_nats` is the log-ratio margin before any scaling.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.objectives.batch import ListLogps, ListSteps, PairLogps, PairTokens, SingleLogps
from trillium.objectives.configs import KTOConfig, ObjectiveConfig, RowConfig
from trillium.objectives.metrics import (
    RewardedPairs,
    order_accuracy,
    pair_rewards,
    single_rewards,
)
from trillium.objectives.recipe_configs import OREOConfig
from trillium.objectives.table import needs_of
from trillium.training.inputs import Inputs


def measure(
    objective: ObjectiveConfig, found: Inputs, labels: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the measures of one row batch, one value per response, pair or list, detached.

    For labelled responses the desirable ones are called `chosen`, the others `rejected`; in a list
    the accuracy is that of its pairs.
    """
    policy, reference = found.policy, found.reference
    if isinstance(policy, SingleLogps):
        return _measure_singles(objective, policy, reference, labels)
    if isinstance(policy, ListLogps | ListSteps):
        return _measure_lists(objective, found, labels)
    if isinstance(policy, Tensor):
        return _measure_trajectories(objective, found)
    pair, fixed = _sums(policy), None
    if isinstance(reference, PairLogps | PairTokens):
        fixed = _sums(reference)
    assert isinstance(objective, RewardedPairs)
    rewards = pair_rewards(objective, pair, fixed)
    u = pair.against(fixed)
    return {
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margins": rewards.margins,
        "rewards/accuracies": rewards.is_right.float(),
        "margin_nats": (u.chosen - u.rejected).detach(),
        "logps/chosen": pair.chosen.detach(),
        "logps/rejected": pair.rejected.detach(),
        **_extras(found),
    }


def _sums(pair: PairLogps | PairTokens) -> PairLogps:
    if isinstance(pair, PairLogps):
        return pair
    return PairLogps(pair.chosen.sum(-1), pair.rejected.sum(-1))


def _extras(found: Inputs) -> dict[str, Tensor]:
    """Return what single tokens say: divergences and masks, as sums and means per response."""
    extras: dict[str, Tensor] = {}
    kl, mask = found.computed.get("kl"), found.computed.get("mask_u")
    if isinstance(kl, PairTokens):
        extras |= {
            "kl/chosen": kl.chosen.sum(-1).detach(),
            "kl/rejected": kl.rejected.sum(-1).detach(),
        }
    if isinstance(mask, PairTokens):
        every = found.scores.lengths
        sides = ((mask.chosen, every[0::2]), (mask.rejected, every[1::2]))
        extras["mask"] = torch.cat([side.sum(-1).detach() / n for side, n in sides])
    return extras


def _measure_singles(
    objective: RowConfig,
    policy: SingleLogps,
    reference: object,
    labels: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    if not isinstance(objective, KTOConfig):
        return {"logps/chosen": policy.logps.detach()}
    assert isinstance(reference, SingleLogps)
    rewards = single_rewards(objective, policy, reference)
    is_chosen = labels["label"] > 0.5
    return {
        f"{name}/{side}": values[mask].detach()
        for name, values in (("rewards", rewards), ("logps", policy.logps))
        for side, mask in (("chosen", is_chosen), ("rejected", ~is_chosen))
    }


def _measure_lists(
    objective: RowConfig, found: Inputs, labels: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return how well log-ratios, or means per token without a reference, order the lists."""
    policy, reference, scores = found.policy, found.reference_logps, found.scores
    assert isinstance(policy, ListLogps | ListSteps)
    logps = scores.logps.detach()
    s = logps / scores.lengths if reference is None else logps - reference
    (label,) = needs_of(objective).labels
    accuracy = order_accuracy(s, labels[label], policy)
    return {"rewards/accuracies": accuracy[~accuracy.isnan()], "logps/mean": logps}


def _measure_trajectories(objective: RowConfig, found: Inputs) -> dict[str, Tensor]:
    assert isinstance(objective, OREOConfig)
    values, scored = found.computed["values"], found.computed["scored"]
    assert isinstance(values, Tensor)
    assert isinstance(scored, Tensor)
    assert found.reference_logps is not None
    logratio = (found.scores.logps - found.reference_logps).detach()
    measures = {"rewards/mean": objective.beta * logratio, "values": values[scored].detach()}
    divergence = found.computed.get(f"{objective.divergence}_kl")
    if isinstance(divergence, Tensor):
        measures["kl/mean"] = divergence[scored].detach()
    return measures


class Meter:
    """Average measures over an optimizer step, whatever row batches it was cut into."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Float[Tensor, ""]] = {}
        self._counts: dict[str, int] = {}

    def add(self, measures: Mapping[str, Tensor]) -> None:
        """Add one row batch: every value weighs the same."""
        for name, values in measures.items():
            total = values.detach().to(torch.float64).sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + values.numel()

    def take(self) -> dict[str, tuple[float, float]]:
        """Return sum and count of each measure, and start again."""
        names = sorted(self._sums)
        # All in one: a device is waited for once, not once per measure.
        sums = torch.stack([self._sums[name] for name in names]).tolist() if names else []
        taken = {
            name: (total, float(self._counts[name]))
            for name, total in zip(names, sums, strict=True)
        }
        self._sums, self._counts = {}, {}
        return taken


def average(parts: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Return the mean of each measure over the parts of a step, one part per process.

    A measure that no response of the step has, such as the reward of rejected ones, is left out.
    """
    names = sorted({name for part in parts for name in part})
    means = {}
    for name in names:
        total = sum(part[name][0] for part in parts if name in part)
        count = sum(part[name][1] for part in parts if name in part)
        if count:
            means[name] = total / count
    return means
