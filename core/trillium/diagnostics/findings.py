"""A finding: one figure, its threshold and where that is from, and one sentence of advice.

A threshold of ours says so. `state` is "alert" when the figure is past its threshold, "unknown"
when there is nothing to measure it on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trillium.objectives.batch import PairLogps

State = Literal["fine", "alert", "unknown"]
Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Finding:
    """Hold one figure with what it is compared with, and what to do when it is past that."""

    topic: str
    figure: str
    value: float
    threshold: str
    source: str
    state: State
    advice: str


def find(
    topic: str,
    figure: str,
    value: float,
    threshold: str,
    source: str,
    is_past: bool,
    advice: str,
) -> Finding:
    """Return a finding; a value that is no number makes it unknown."""
    state: State = "unknown" if math.isnan(value) else "alert" if is_past else "fine"
    return Finding(topic, figure, value, threshold, source, state, advice)


def pair_logps(rows: Rows, model: Literal["policy", "reference"]) -> PairLogps:
    """Return one model's log-probabilities from measured rows, in float64."""
    return PairLogps(
        column(rows, f"{model}_chosen"),
        column(rows, f"{model}_rejected"),
        column(rows, "n_chosen").long(),
        column(rows, "n_rejected").long(),
    )


def column(rows: Rows, name: str) -> Float[Tensor, " row"]:
    """Return one column of measured rows."""
    return torch.tensor([row[name] for row in rows], dtype=torch.float64)


def mean(values: Float[Tensor, " row"] | Bool[Tensor, " row"]) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.double().mean()) if len(values) else math.nan
