"""What a step reports about responses, and how it is averaged. Nothing here enters a loss.

The names are TRL's, so that existing dashboards read them: rewards, margins, accuracies and
log-probabilities of both sides. `margin_nats` is the log-ratio margin before any scaling.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.configs import KTOConfig, ObjectiveConfig
from trillium.objectives.metrics import pair_rewards, single_rewards


def measure(
    objective: ObjectiveConfig,
    policy: PairLogps | SingleLogps,
    reference: PairLogps | SingleLogps | None,
    labels: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the measures of one row batch, one value per response or pair, detached.

    For labelled responses the desirable ones are called `chosen`, the others `rejected`.
    """
    if isinstance(objective, KTOConfig):
        assert isinstance(policy, SingleLogps)
        assert isinstance(reference, SingleLogps)
        rewards = single_rewards(objective, policy, reference)
        is_chosen = labels["label"] > 0.5
        return {
            f"{name}/{side}": values[mask].detach()
            for name, values in (("rewards", rewards), ("logps", policy.logps))
            for side, mask in (("chosen", is_chosen), ("rejected", ~is_chosen))
        }
    assert isinstance(policy, PairLogps)
    assert not isinstance(reference, SingleLogps)
    pair = pair_rewards(objective, policy, reference)
    u = policy.against(reference)
    return {
        "rewards/chosen": pair.chosen,
        "rewards/rejected": pair.rejected,
        "rewards/margins": pair.margins,
        "rewards/accuracies": pair.is_right.float(),
        "margin_nats": (u.chosen - u.rejected).detach(),
        "logps/chosen": policy.chosen.detach(),
        "logps/rejected": policy.rejected.detach(),
    }


class Meter:
    """Average measures over an optimizer step, whatever row batches it was cut into."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Float[Tensor, " 2"]] = {}

    def add(self, measures: Mapping[str, Tensor]) -> None:
        """Add one row batch: every value weighs the same."""
        for name, values in measures.items():
            values = values.detach().to(torch.float64)
            counted = torch.stack([values.sum(), values.new_tensor(float(values.numel()))])
            self._sums[name] = self._sums[name] + counted if name in self._sums else counted

    def take(self) -> dict[str, tuple[float, float]]:
        """Return sum and count of each measure, and start again."""
        sums = {name: tuple(counted.tolist()) for name, counted in sorted(self._sums.items())}
        self._sums = {}
        return sums


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
