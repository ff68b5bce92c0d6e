"""How a list meets a history: by attention, item by item, or by means alone.

Both give one state per item of each list. The pooled one exists to judge the other: what two models
of different form, trained on different users, agree about is no quirk of either.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

_DECAY = 0.9


class TargetAwareMeeting(nn.Module):
    """Let every item of a list look into the history, then the items at one another."""

    def __init__(
        self, width: int, n_heads: int, max_items: int, n_places: int, dropout: float
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.ages = nn.Embedding(max_items, width)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Embedding(n_places, width)
        # What is found stays in the space of the items, so that it can be compared with them.
        self.look = _Attention(width, n_heads, keeps_space=True)
        self.confer = _Attention(width, n_heads)
        self.combine = nn.Linear(3 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        history: Float[Tensor, "user item hidden"],
        is_item: Bool[Tensor, "user item"],
        lists: Float[Tensor, "user beam place hidden"],
        is_place: Bool[Tensor, "user beam place"],
    ) -> Float[Tensor, "user beam place hidden"]:
        """Return the state of every item of every list."""
        n_users, n_beams, n_places, width = lists.shape
        # What every item can look at, so that an empty history leaves no softmax empty.
        nothing = self.nothing.expand(n_users, 1, -1)
        keys = torch.cat([nothing, history + self.ages(_ages(is_item))], dim=1)
        values = torch.cat([nothing, history], dim=1)
        seen = functional.pad(is_item, (1, 0), value=True)[:, None, None]
        found = self.look(lists.flatten(1, 2), keys, values, seen).view_as(lists)
        mixed = self.combine(torch.cat([lists, found, lists * found], dim=-1))
        met: Tensor = self.dropout(mixed + self.places(torch.arange(n_places, device=lists.device)))
        rows = self.norm(met).view(n_users * n_beams, n_places, width)
        others = is_place.view(n_users * n_beams, 1, 1, n_places).clone()
        others[:, :, :, 0] = True
        conferred: Tensor = self.confer(rows, rows, rows, others)
        return met + conferred.view_as(met)


class PooledMeeting(nn.Module):
    """Compare every item with the mean of the history, its last item, and what stands above it."""

    def __init__(
        self, width: int, n_heads: int, max_items: int, n_places: int, dropout: float
    ) -> None:
        """Build the layers; heads of attention play no part."""
        super().__init__()
        self.places = nn.Embedding(n_places, width)
        self.first, self.second = nn.Linear(5 * width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        history: Float[Tensor, "user item hidden"],
        is_item: Bool[Tensor, "user item"],
        lists: Float[Tensor, "user beam place hidden"],
        is_place: Bool[Tensor, "user beam place"],
    ) -> Float[Tensor, "user beam place hidden"]:
        """Return the state of every item of every list."""
        ages = _ages(is_item)
        weights = (_DECAY**ages) * is_item
        mean = (history * weights[..., None]).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-6)[
            :, None
        ]
        newest = (history * ((ages == 0) & is_item)[..., None]).sum(dim=1)
        mean, newest = mean[:, None, None], newest[:, None, None]
        place = torch.arange(lists.shape[2], device=lists.device)
        above = (_running_sums(lists) - lists) / place.clamp(min=1)[:, None]
        features = torch.cat(
            [lists, mean * lists, newest * lists, above * lists, mean.expand_as(lists)], dim=-1
        )
        hidden = self.dropout(functional.gelu(self.first(features)))
        found: Tensor = self.second(hidden) + self.places(place)
        return found


class _Attention(nn.Module):
    """Attention that maps values and results, or leaves them in the space they came from."""

    def __init__(self, width: int, n_heads: int, *, keeps_space: bool = False) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value: nn.Module = nn.Identity() if keeps_space else nn.Linear(width, width)
        self.output: nn.Module = nn.Identity() if keeps_space else nn.Linear(width, width)

    def forward(
        self,
        asking: Float[Tensor, "row query hidden"],
        keys: Float[Tensor, "row key hidden"],
        values: Float[Tensor, "row key hidden"],
        mask: Bool[Tensor, "row 1 1 key"],
    ) -> Float[Tensor, "row query hidden"]:
        query, key, value = (
            layer(each).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer, each in ((self.query, asking), (self.key, keys), (self.value, values))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        found: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return found


def _ages(is_item: Bool[Tensor, "user item"]) -> Tensor:
    """Return how many items of the history are newer than each one; 0 for padding."""
    newest = is_item.sum(dim=1, keepdim=True) - 1
    return (newest - torch.arange(is_item.shape[1], device=is_item.device)).clamp(min=0)


def _running_sums(lists: Float[Tensor, "user beam place hidden"]) -> Tensor:
    """Return at each place the sum up to and with it; `cumsum` has no fixed order on a GPU."""
    total, sums = torch.zeros_like(lists[:, :, 0], dtype=torch.float64), []
    for place in range(lists.shape[2]):
        total = total + lists[:, :, place]
        sums.append(total.to(lists.dtype))
    return torch.stack(sums, dim=2)
