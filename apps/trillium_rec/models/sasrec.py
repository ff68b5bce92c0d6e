"""SASRec (arXiv 1808.09781) trained with cross-entropy over all items: the baseline to beat."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from trillium_rec.models.batches import SequenceBatch, embed, last_places, pad
from trillium_rec.models.experts import start_weights
from trillium_rec.models.item_context import ItemContext
from trillium_rec.models.item_loss import item_loss
from trillium_rec.splits import Sequences


@dataclass(frozen=True)
class Losses:
    """Hold the loss to minimise and its parts without gradients, means over targets in nats."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


class SasRecConfig(PreTrainedConfig):
    """Choose the size of a SASRec."""

    model_type = "trillium_sasrec"

    n_items: int = 1
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    max_items: int = 50
    dropout: float = 0.3
    n_negatives: int = 0


class SasRec(PreTrainedModel):
    """Score all items by the state after the last one; item vectors are input and output alike."""

    config_class = SasRecConfig
    base_model_prefix = "sasrec"

    def __init__(self, config: SasRecConfig) -> None:
        """Build with random weights."""
        super().__init__(config)
        self.items = nn.Embedding(config.n_items, config.d_model)
        self.context = ItemContext(
            config.d_model, config.n_layers, config.n_heads, config.max_items, config.dropout
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        start_weights(module, 0.02)

    def losses(self, batch: SequenceBatch) -> Losses:
        """Return the cross-entropy of the next item at every place."""
        batch = batch.to(self.device)
        hidden = self.context(embed(self.items.weight, batch.items))
        is_target = batch.is_target
        states, targets = hidden[is_target], batch.targets[is_target]
        loss = item_loss(states, self.items.weight, targets, n_negatives=self.config.n_negatives)
        return Losses(loss, {"item": loss.detach()})

    @torch.inference_mode()
    def score_items(self, histories: Sequences) -> Float[Tensor, "user item"]:
        """Return the logits of every item after each history."""
        items = pad(histories, self.config.max_items).to(self.device)
        hidden = self.context(embed(self.items.weight, items))
        last = hidden[torch.arange(len(items), device=self.device), last_places(items)]
        found: Tensor = last @ self.items.weight.T
        return found
