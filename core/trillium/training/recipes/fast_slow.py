"""OFS-DPO: a fast and a slow adapter that chase each other through a stream of preferences.

The fast one fits what comes, the slow one lags behind, and whichever fits better plays fast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import Field

from trillium.deployment.provenance import warn_unservable
from trillium.errors import DataError
from trillium.objectives.batch import PairLogps
from trillium.objectives.iterations import ofs_losses
from trillium.objectives.pairwise import dpo
from trillium.objectives.recipe_configs import OFSConfig
from trillium.policies.adapters import POLICY_ADAPTER, copy_adapter, save_adapter
from trillium.scoring.reference import ReferenceProvider
from trillium.scoring.scores import score
from trillium.training.adapter_loop import BatchRows, LoopConfig, through_adapter, train_adapters
from trillium.training.inputs import as_pairs
from trillium.tree_batch import TreeBatch
from trillium.trees import TokenTree

SECOND_ADAPTER = "second"
"""The other adapter; at first it is the slow one."""


class FastSlowConfig(LoopConfig):
    """Choose how the two adapters chase each other."""

    objective: OFSConfig = Field(default=OFSConfig(), description="DPO and the chase")
    fast_learning_rate: float = Field(default=5e-5, gt=0, description="of whoever plays fast")
    slow_learning_rate: float = Field(default=1e-5, gt=0, description="of whoever plays slow")
    swap_steps: int = Field(default=10, gt=0, description="steps between two looks at the roles")


@dataclass(frozen=True)
class FastSlowAdapters:
    """Say where the two adapters are in their last roles; `fast` is the one to serve.

    Each row of `metrics` holds the mean DPO losses of the two roles and `fast_is_second`, who
    played fast in that step.
    """

    fast: Path
    slow: Path
    metrics: tuple[dict[str, int | float], ...]


def train_fast_slow(
    config: FastSlowConfig,
    trees: Sequence[TokenTree],
    model: PeftModel,
    reference: ReferenceProvider,
    output: Path,
) -> FastSlowAdapters:
    """Train OFS-DPO on pairs (arXiv 2406.05534); the policy's adapter begins as the fast one.

        fast:  dpo(fast) + alpha * chase          slow:  dpo(slow) - alpha * chase

    Every `swap_steps` steps the adapter with the lower mean DPO loss since the last look plays
    fast; roles carry the learning rates, adapters keep their own moments. In the end the policy's
    adapter is whichever it was trained to be: serve `fast`.
    Raises DataError for trees that are no pairs.
    """
    for tree in trees:
        if tree.n_paths != 2:
            raise DataError(
                f"tree {tree.id}: has {tree.n_paths} responses (ofs_dpo needs pairs of a chosen "
                "and a rejected response); convert the rows"
            )
    copy_adapter(model, POLICY_ADAPTER, SECOND_ADAPTER)
    method = _Chase(model, reference, config)
    metrics = train_adapters(model, method, trees, config, output, title="ofs_dpo")
    for folder, name in (("fast", method.fast), ("slow", method.slow)):
        save_adapter(model, output / folder, name=name)
        warn_unservable(output / folder)
    return FastSlowAdapters(output / "fast", output / "slow", tuple(metrics))


class _Chase:
    """One step of OFS-DPO, and who plays which role."""

    adapters = (POLICY_ADAPTER, SECOND_ADAPTER)

    def __init__(
        self, model: PeftModel, reference: ReferenceProvider, config: FastSlowConfig
    ) -> None:
        self._model, self._reference, self._config = model, reference, config
        self.fast, self.slow = self.adapters
        self._n_steps = 0
        # Mean DPO losses of the two roles, added up since the last look.
        self._fast_sum = self._slow_sum = 0.0

    @property
    def identity(self) -> str:
        return f"ofs_dpo against {self._reference.identity}"

    def learning_rates(self) -> Mapping[str, float]:
        rates = {self.fast: self._config.fast_learning_rate}
        rates[self.slow] = self._config.slow_learning_rate
        return {name: rates[name] for name in self.adapters}

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        objective = self._config.objective
        fast_dpo = slow_dpo = total = 0.0
        for rows in batch_rows(trees):
            reference = as_pairs(rows, self._reference.logps(rows), None)
            fast, slow = self._score(rows, self.fast), self._score(rows, self.slow)
            losses = ofs_losses(fast, slow, reference, beta=objective.beta, alpha=objective.alpha)
            loss = (losses.fast + losses.slow).sum() / len(trees)
            torch.autograd.backward([loss])
            with torch.no_grad():
                fast_dpo += dpo(fast, reference, beta=objective.beta).sum().item() / len(trees)
                slow_dpo += dpo(slow, reference, beta=objective.beta).sum().item() / len(trees)
            total += loss.item()
        metrics = {"loss": total, "dpo_fast": fast_dpo, "dpo_slow": slow_dpo}
        metrics["fast_is_second"] = float(self.fast == SECOND_ADAPTER)
        self._look(fast_dpo, slow_dpo)
        return metrics

    def state(self) -> dict[str, str | float]:
        return {
            "fast": self.fast,
            "n_steps": self._n_steps,
            "fast_sum": self._fast_sum,
            "slow_sum": self._slow_sum,
        }

    def restore(self, state: Mapping[str, str | float]) -> None:
        self.fast = str(state["fast"])
        self.slow = next(name for name in self.adapters if name != self.fast)
        self._n_steps = int(state["n_steps"])
        self._fast_sum, self._slow_sum = float(state["fast_sum"]), float(state["slow_sum"])

    def _score(self, rows: TreeBatch, name: str) -> PairLogps:
        with through_adapter(self._model, name):
            return as_pairs(rows, score(self._model, rows).logps, None)

    def _look(self, fast_dpo: float, slow_dpo: float) -> None:
        """Count a step, and swap the roles when it is time and the slow adapter fits better."""
        self._n_steps += 1
        self._fast_sum, self._slow_sum = self._fast_sum + fast_dpo, self._slow_sum + slow_dpo
        if self._n_steps % self._config.swap_steps == 0:
            if self._slow_sum < self._fast_sum:
                self.fast, self.slow = self.slow, self.fast
            self._fast_sum = self._slow_sum = 0.0
