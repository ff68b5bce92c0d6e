"""The loss of a dense head: cross-entropy over all items, or over a sample that stands for them."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def item_loss(
    states: Float[Tensor, "row hidden"],
    vectors: Float[Tensor, "item hidden"],
    targets: Int[Tensor, " row"],
    *,
    n_negatives: int,
    warm: Int[Tensor, " warm"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over rows of -log softmax(vectors @ state)[target], in nats.

    With `n_negatives` k > 0 the sum over the n items that are not the target is estimated from k
    items drawn without replacement, the same for all rows:  exp(s_j) counts n / k times. That is
    the logQ correction (Bengio and Senecal 2008) for a uniform Q; the estimate of the sum has no
    bias. k = 0, or k >= n, is the sum itself. Draws from torch's generator, as dropout does.
    `warm` names the items that compete, in rising order, every target among them; without it all
    do. An item that nobody has taken yet would only ever be pushed down.
    """
    warm = torch.arange(len(vectors), device=vectors.device) if warm is None else warm
    n_items = len(warm)
    if n_negatives == 0 or n_negatives >= n_items:
        return functional.cross_entropy(states @ vectors[warm].T, torch.searchsorted(warm, targets))
    drawn = warm[torch.randperm(n_items, device=vectors.device)[:n_negatives]]
    others = states @ vectors[drawn].T + math.log(n_items / n_negatives)
    others = others.masked_fill(drawn == targets[:, None], -torch.inf)
    own = (states * vectors[targets]).sum(dim=1, keepdim=True)
    return (torch.cat([own, others], dim=1).logsumexp(dim=1) - own[:, 0]).mean()
