"""MEET: one control adapter for good responses and one for bad ones, on the same frozen model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from pydantic import Field

from trillium.deployment.provenance import warn_unservable
from trillium.errors import DataError
from trillium.objectives.batch import SingleLogps
from trillium.objectives.recipe_configs import MEETConfig
from trillium.objectives.unpaired import meet
from trillium.policies.adapters import POLICY_ADAPTER, copy_adapter, save_adapter
from trillium.scoring.scores import score
from trillium.training.adapter_loop import BatchRows, LoopConfig, through_adapter, train_adapters
from trillium.trees import TokenTree

BAD_ADAPTER = "bad"
"""The adapter of the bad responses; that of the good ones is the policy's own."""


class ControlConfig(LoopConfig):
    """Choose how the two control adapters are trained."""

    objective: MEETConfig = Field(default=MEETConfig(), description="how tokens are averaged")
    learning_rate: float = Field(default=5e-5, gt=0, description="of both adapters")


@dataclass(frozen=True)
class ControlAdapters:
    """Say where the two adapters are; `good` is the one to serve."""

    good: Path
    bad: Path
    metrics: tuple[dict[str, int | float], ...]


def train_control_adapters(
    config: ControlConfig, trees: Sequence[TokenTree], model: PeftModel, output: Path
) -> ControlAdapters:
    """Train MEET's control adapters (arXiv 2310.00819): likelihood of each response, routed.

    Trees have one path and the label "label": 1 goes through the good adapter, 0 through the bad
    one, and neither sees a gradient of the other's responses. Both start as copies of the policy's
    own adapter, which becomes the good one.
    This is the paper's first stage, in which the model is frozen; the second stage, which trains
    the model as well, has no place on a base that stays as it is.
    Raises DataError when a tree has not one path and its label, or one of the kinds is absent.
    """
    _check_rows(trees)
    copy_adapter(model, POLICY_ADAPTER, BAD_ADAPTER)
    method = _Routing(model, config)
    metrics = train_adapters(model, method, trees, config, output, title="meet")
    for folder, name in (("good", POLICY_ADAPTER), ("bad", BAD_ADAPTER)):
        save_adapter(model, output / folder, name=name)
        warn_unservable(output / folder)
    return ControlAdapters(output / "good", output / "bad", tuple(metrics))


class _Routing:
    """One step of MEET: every row through its own adapter."""

    def __init__(self, model: PeftModel, config: ControlConfig) -> None:
        self._model, self._config = model, config
        self.adapters = (POLICY_ADAPTER, BAD_ADAPTER)

    @property
    def identity(self) -> str:
        return "meet"  # all that is configured is part of the loop's configuration

    def learning_rates(self) -> Mapping[str, float]:
        return dict.fromkeys(self.adapters, self._config.learning_rate)

    def accumulate(self, trees: Sequence[TokenTree], batch_rows: BatchRows) -> Mapping[str, float]:
        n_tokens = sum(tree.path(0).n_scored for tree in trees)
        divisor = n_tokens if self._config.objective.reduction == "pooled" else 1
        kinds = [[tree for tree in trees if _is_good(tree) == good] for good in (True, False)]
        good, bad = (
            self._add(name, own, divisor, batch_rows)
            for name, own in zip(self.adapters, kinds, strict=True)
        )
        return {"loss": good + bad, "loss_good": good, "loss_bad": bad}

    def state(self) -> dict[str, str | float]:
        return {}

    def restore(self, state: Mapping[str, str | float]) -> None:
        return None

    def _add(
        self, name: str, own: Sequence[TokenTree], divisor: int, batch_rows: BatchRows
    ) -> float:
        """Add the gradients of one adapter's responses; returns their share of the loss."""
        total = 0.0
        for rows in batch_rows(own):
            with through_adapter(self._model, name):
                scored = SingleLogps(score(self._model, rows).logps)
                nothing = SingleLogps(scored.logps[:0])
                good, bad = (scored, nothing) if name == POLICY_ADAPTER else (nothing, scored)
                loss = meet(good, bad, reduction="sum") / divisor
                torch.autograd.backward([loss])
            total += loss.item()
        return total


def _is_good(tree: TokenTree) -> bool:
    return tree.labels["label"][0] > 0.5


def _check_rows(trees: Sequence[TokenTree]) -> None:
    for tree in trees:
        if tree.n_paths != 1 or "label" not in tree.labels:
            raise DataError(
                f"tree {tree.id}: has {tree.n_paths} responses and labels {sorted(tree.labels)} "
                '(meet needs one response with "label", 1 for good); convert the rows'
            )
    n_good = sum(map(_is_good, trees))
    if n_good in (0, len(trees)):
        raise DataError(
            f"meet: {n_good} of {len(trees)} responses are good (needs both kinds, one for each "
            "adapter); add the other kind"
        )
