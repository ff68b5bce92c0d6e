"""A causal transformer over items, one position per item, trained at all positions at once."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trillium_rec.models.experts import FeedForward


class ItemContext(nn.Module):
    """Turn item vectors, oldest first and padded at the new end, into one state per position.

    Padding comes after every real item, so causality alone keeps it from being seen.
    """

    def __init__(
        self, d_model: int, n_layers: int, n_heads: int, max_items: int, dropout: float
    ) -> None:
        """Build the layers; positions count from the oldest item that is kept."""
        super().__init__()
        self.positions = nn.Embedding(max_items, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            [_ContextLayer(d_model, n_heads, dropout) for _ in range(n_layers)]
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, vectors: Float[Tensor, "user place hidden"]
    ) -> Float[Tensor, "user place hidden"]:
        """Return the state after each item."""
        places = torch.arange(vectors.shape[1], device=vectors.device)
        hidden = self.dropout(vectors + self.positions(places))
        for layer in self.layers:
            hidden = layer(hidden)
        found: Tensor = self.norm(hidden)
        return found


class _ContextLayer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.rate = n_heads, dropout
        self.attend_norm, self.feed_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.project = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(d_model, 4 * d_model, dropout)

    def forward(
        self, hidden: Float[Tensor, "user place hidden"]
    ) -> Float[Tensor, "user place hidden"]:
        n_users, n_places, width = hidden.shape
        parts = self.project(self.attend_norm(hidden)).view(n_users, n_places, 3, self.n_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=rate, is_causal=True
        )
        mixed = mixed.transpose(1, 2).reshape(n_users, n_places, width)
        hidden = hidden + self.dropout(self.output(mixed))
        found: Tensor = hidden + self.feed(self.feed_norm(hidden))
        return found
