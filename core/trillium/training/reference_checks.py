"""What a run asks of its reference beside log-probabilities: KTO's mismatch, and equal starts."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trillium.errors import ConfigError
from trillium.scoring.layout import evaluating
from trillium.scoring.reference import ReferenceProvider
from trillium.scoring.scores import Scores, score
from trillium.tree_batch import TreeBatch

# Mean |log-ratio| per token that rounding explains when two passes arrange the same rows
# differently: measured on a 135M model at most 2e-6 in float32, and in bfloat16 6e-3 on a processor
# and 3.4e-2 on a GPU for one short path. So paths are pooled: a wrong reference is wrong on all.
_ROUNDING_NATS = {torch.float32: 1e-4, torch.float64: 1e-9}
_ROUNDING_NATS_LOW_PRECISION = 3e-2


@torch.no_grad()
def mismatched_logratios(
    policy: nn.Module, reference: ReferenceProvider, batches: Iterable[tuple[TreeBatch, bool]]
) -> float:
    """Return the summed log-ratio of KTO's mismatched responses (arXiv 2402.01306, Section 4.1).

    A batch that comes with False is computed and does not count.
    """
    total = 0.0
    with evaluating(policy):
        for rows, counts in batches:
            logratios = score(policy, rows).logps - reference.logps(rows)
            total += logratios.to(torch.float64).sum().item() if counts else 0.0
    return total


def base_dtype(policy: nn.Module) -> torch.dtype:
    """Return the lowest floating-point precision among the weights."""
    dtypes = {p.dtype for p in policy.parameters() if p.dtype.is_floating_point}
    return min(dtypes, key=lambda dtype: torch.finfo(dtype).bits)


def starting_logps(policy: nn.Module, rows: TreeBatch, scores: Scores) -> Float[Tensor, " path"]:
    """Return what the policy computes before its first step; a second pass where it drops inputs.

    The reference never does, and a trained adapter with dropout computes something else each time.
    """
    if not any(isinstance(m, nn.Dropout) and m.training and m.p for m in policy.modules()):
        return scores.logps
    with torch.no_grad(), evaluating(policy):
        return score(policy, rows).logps


def check_starts_at_reference(
    policy: Float[Tensor, " path"],
    reference: Float[Tensor, " path"],
    lengths: Int[Tensor, " path"],
    dtype: torch.dtype,
) -> None:
    """Raise ConfigError unless policy and reference agree up to the rounding of `dtype`.

    What counts is the mean over all scored tokens, not the worst path.
    """
    gap = ((policy.detach() - reference).abs().sum() / lengths.sum().clamp(min=1)).item()
    allowed = _ROUNDING_NATS.get(dtype, _ROUNDING_NATS_LOW_PRECISION)
    if gap > allowed:
        raise ConfigError(
            f"before the first step the policy differs from its reference by {gap:.2g} nats per "
            f"token (at most {allowed:.0e} is rounding; they are the same model); the reference "
            "log-probabilities belong to another model: delete the reference cache, or set "
            "reference to what the policy starts from"
        )
