"""The reward model R(user, list): several heads, calibrated, and one number made of them.

    e_i = combine[v_i, u_i, v_i * u_i]      u_i: what item i finds in the history by attention
    h   = e + self-attention over the list
    p   = sigmoid(tower(h_i)) per head and item, or of sum_i h_i per head (`pooling`)

OneRec's model (arXiv 2502.18965, Section 3.3) is the second form. Reading: the paper does not say
how its heads become one number. Here

    R = sum_h weight_h * ln(p_h / rate_h) / sum_h weight_h      p_h: mean over the list, calibrated

with rate_h the head's share in the training lists: 0 is an average list, ln 2 one with twice the
odds of everything, and a frequent head cannot drown a rare one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from trillium_rec.models.batches import embed, pad
from trillium_rec.models.experts import start_weights
from trillium_rec.models.sasrec import Losses
from trillium_rec.reward.meetings import PooledMeeting, TargetAwareMeeting
from trillium_rec.splits import Sequences


@dataclass(frozen=True)
class RewardBatch:
    """Hold histories and lists, both padded with -1 at the end, and labels per item and head."""

    history: Int[Tensor, "user item"]
    lists: Int[Tensor, "user place"]
    labels: Float[Tensor, "user place head"]

    def to(self, device: torch.device) -> "RewardBatch":
        """Return the same batch on `device`."""
        return RewardBatch(self.history.to(device), self.lists.to(device), self.labels.to(device))

    @property
    def n_targets(self) -> int:
        """Count the items that were shown."""
        return int((self.lists >= 0).sum())


class RewardModelConfig(PreTrainedConfig):
    """Choose the size of a reward model; rates, slopes and intercepts are found by fitting."""

    model_type = "trillium_reward"

    architecture: str = "target_aware"
    pooling: str = "items"
    heads: list[str] | None = None
    weights: list[float] | None = None
    rates: list[float] | None = None
    slopes: list[float] | None = None
    intercepts: list[float] | None = None
    n_items: int = 1
    n_content: int = 0
    n_places: int = 5
    d_model: int = 32
    n_heads: int = 2
    max_items: int = 50
    dropout: float = 0.1
    id_dropout: float = 0.1


class RewardModel(PreTrainedModel):
    """Predict what a user does with every item of a list, and what the list is worth."""

    config_class = RewardModelConfig
    base_model_prefix = "reward"

    content: Tensor

    def __init__(self, config: RewardModelConfig) -> None:
        """Build with random weights; `content` comes with the catalogue."""
        super().__init__(config)
        width, n_heads = config.d_model, len(config.heads or [])
        self.own = nn.Embedding(config.n_items, width)
        self.content_map = nn.Linear(max(config.n_content, 1), width, bias=False)
        kind = TargetAwareMeeting if config.architecture == "target_aware" else PooledMeeting
        self.meeting = kind(
            width, config.n_heads, config.max_items, config.n_places, config.dropout
        )
        self.towers = nn.ModuleList([_Tower(width, config.dropout) for _ in range(n_heads)])
        self.register_buffer("content", torch.zeros(config.n_items, max(config.n_content, 1)))
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        start_weights(module, 0.02)
        if isinstance(module, nn.Linear):
            # Products of vectors of spread 0.02 would be too small to learn from.
            nn.init.xavier_uniform_(module.weight)

    def item_vectors(self) -> Float[Tensor, "item hidden"]:
        """Return the vector of every item: its content and what is its own."""
        own = self.own.weight
        if self.training and self.config.id_dropout > 0:
            own = own * (torch.rand(len(own), 1, device=own.device) >= self.config.id_dropout)
        if not self.config.n_content:
            return own
        mapped: Tensor = self.content_map(self.content)
        return mapped + own

    def logits(
        self, history: Int[Tensor, "user item"], lists: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam place head"]:
        """Return the logits of every head; with `pooling` sum one place stands for the list."""
        vectors = self.item_vectors()
        there = lists >= 0
        met = self.meeting(embed(vectors, history), history >= 0, embed(vectors, lists), there)
        if self.config.pooling == "sum":
            met = (met * there[..., None]).sum(dim=2, keepdim=True)
        return torch.cat([tower(met) for tower in self.towers], dim=-1)

    def losses(self, batch: RewardBatch) -> Losses:
        """Return the sum over heads of the binary cross-entropy, a mean over items (or lists).

        A list has, for the heads that read its sum, the share of its items as label.
        """
        batch = batch.to(self.device)
        there = batch.lists >= 0
        logits = self.logits(batch.history, batch.lists[:, None])[:, 0]
        labels = batch.labels
        if self.config.pooling == "sum":
            labels = list_labels(labels, there)
            there = there.any(dim=1, keepdim=True)
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        by_head = (losses * there[..., None]).sum(dim=(0, 1)) / there.sum()
        names = self.config.heads or []
        parts = dict(zip(names, by_head.detach().unbind(), strict=True))
        return Losses(by_head.sum(), parts)

    def probabilities(
        self, history: Int[Tensor, "user item"], lists: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam head"]:
        """Return the calibrated probability of each head, a mean over the items of each list."""
        logits = self.logits(history, lists)
        slopes = logits.new_tensor(self.config.slopes or [1.0])
        intercepts = logits.new_tensor(self.config.intercepts or [0.0])
        chance = (slopes * logits + intercepts).sigmoid()
        if self.config.pooling == "sum":
            return chance[:, :, 0]
        there = (lists >= 0)[..., None]
        return (chance * there).sum(dim=2) / there.sum(dim=2).clamp(min=1)

    def rewards(
        self, history: Int[Tensor, "user item"], lists: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam"]:
        """Return R of each list, in nats; lists without items have -inf."""
        chance = self.probabilities(history, lists)
        rates = chance.new_tensor(self.config.rates or [0.5])
        weights = chance.new_tensor(self.config.weights or [1.0])
        gains = chance.clamp(min=torch.finfo(chance.dtype).tiny).log() - rates.log()
        found = (gains * weights).sum(dim=-1) / weights.sum()
        return found.masked_fill((lists < 0).all(dim=2), -torch.inf)

    @torch.inference_mode()
    def score(
        self, histories: Sequences, lists: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam"]:
        """Return R of some lists of each user; the first `n_places` items are read."""
        history = pad(histories, self.config.max_items).to(self.device)
        return self.rewards(history, lists[:, :, : self.config.n_places].to(self.device))


def list_labels(
    labels: Float[Tensor, "user place head"], there: Bool[Tensor, "user place"]
) -> Float[Tensor, "user 1 head"]:
    """Return the share of each list's items that have each label."""
    total = (labels * there[..., None]).sum(dim=1, keepdim=True)
    return total / there.sum(dim=1)[:, None, None].clamp(min=1)


class _Tower(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, width), nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... 1"]:
        found: Tensor = self.narrow(self.dropout(functional.gelu(self.widen(hidden))))
        return found
