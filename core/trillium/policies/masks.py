"""Masks over tokens that are learned beside the policy, for SparsePO.

A mask reads the hidden states of the frozen reference and says how much each token counts. The loss
that trains it is `objectives.tokens.sparsepo`; masks that need no training are `mapo_mask` there.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu


class LearnedMask(nn.Module):
    """Weigh each token by the reference's hidden states (arXiv 2410.05102).

        m_layer = dropout(relu(weight[layer] . layer_norm(hidden[layer]) + bias[layer]))
        mask    = relu(sum over layers of combine[layer] * m_layer)

    One module shared by log-ratios and divergences gives the common mask, two the independent ones.
    The affine part of the paper's LayerNorm is left out, because the linear map after it contains
    it. Masks have no upper bound.
    Reading: the paper does not give initial values; ours make every mask one, so that training
    starts at tdpo1 and no rectifier starts closed.
    """

    def __init__(self, n_layers: int, width: int, *, dropout: float = 0.0) -> None:
        """Build a mask over `n_layers` hidden states of `width` numbers each."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_layers, width))
        self.bias = nn.Parameter(torch.ones(n_layers))
        self.combine = nn.Parameter(torch.full((n_layers,), 1 / n_layers))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Float[Tensor, "row token layer width"], scored: Bool[Tensor, "row token"]
    ) -> Float[Tensor, "row token"]:
        """Return one weight per token, zero where none is scored."""
        # The reference is frozen: only the mask learns from its hidden states.
        normed = layer_norm(hidden.detach(), hidden.shape[-1:])
        scores = torch.einsum("rtlw,lw->rtl", normed, self.weight) + self.bias
        mask = relu(self.dropout(relu(scores)) @ self.combine)
        return torch.where(scored, mask, 0.0)
