"""The lazy recommender: context over items, semantic ids decoded from one state per user.

After OneRec-V2's lazy decoder (arXiv 2508.20900): no encoder reads the codes of the history; an
item is one vector. Reading: a preset for small machines, not the published model. Two heads share
the context: codes one level after another, and all items at once (the dense head).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from trillium_rec.models.batches import SequenceBatch, embed, keep_last, last_places, pad
from trillium_rec.models.experts import feed_forward, start_weights
from trillium_rec.models.item_context import ItemContext
from trillium_rec.models.item_loss import item_loss
from trillium_rec.models.sasrec import Losses
from trillium_rec.semantic_ids import SemanticIds
from trillium_rec.splits import Sequences


@dataclass(frozen=True)
class LazyReading:
    """Hold what all heads start from: histories, the state after each, and all item vectors."""

    items: Int[Tensor, "user place"]
    states: Float[Tensor, "user hidden"]
    vectors: Float[Tensor, "item hidden"]


class LazyConfig(PreTrainedConfig):
    """Choose the size of a lazy recommender; `sizes` counts the codes of each level.

    `n_warm` items have a vector of their own beside their codes; those added later do not.
    """

    model_type = "trillium_lazy"

    sizes: list[int] | None = None
    ids_version: str = ""
    n_items: int = 1
    n_warm: int = 1
    n_content: int = 0
    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    max_items: int = 50
    n_decoder_layers: int = 2
    d_ff: int = 256
    n_experts: int = 0
    n_active: int = 2
    balance_rate: float = 0.001
    dropout: float = 0.3
    id_dropout: float = 0.1
    content_dropout: float = 0.1
    n_negatives: int = 0


class LazyRecommender(PreTrainedModel):
    """Hold item vectors, the context and the two heads."""

    config_class = LazyConfig
    base_model_prefix = "lazy"

    codes: Tensor
    content: Tensor
    # Rows of the items that training shows; the others take no part in the dense loss.
    warm: Int[Tensor, " warm"] | None = None

    def __init__(self, config: LazyConfig) -> None:
        """Build with random weights; `set_catalogue` gives it the items' codes."""
        super().__init__(config)
        sizes = config.sizes or []
        width = config.d_model
        self.code_inputs = nn.ModuleList([nn.Embedding(size, width) for size in sizes])
        self.code_outputs = nn.ModuleList([nn.Linear(width, size, bias=False) for size in sizes])
        self.own = nn.Embedding(config.n_warm, width)
        self.content_map = nn.Linear(max(config.n_content, 1), width, bias=False)
        self.context = ItemContext(
            width, config.n_layers, config.n_heads, config.max_items, config.dropout
        )
        self.levels = nn.Embedding(max(len(sizes), 1), width)
        self.decoder = nn.ModuleList(
            [_DecoderLayer(config) for _ in range(config.n_decoder_layers)]
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.register_buffer("codes", torch.zeros(config.n_items, len(sizes), dtype=torch.int64))
        self.register_buffer("content", torch.zeros(config.n_items, max(config.n_content, 1)))
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        start_weights(module, 0.02)

    def set_catalogue(
        self, ids: SemanticIds, content: Float[Tensor, "item content"] | None
    ) -> None:
        """Take over the codes and content vectors of all items, new ones included."""
        self.config.n_items = ids.n_items
        self.config.ids_version = ids.version
        self.codes = torch.from_numpy(ids.codes).to(self.codes.device)
        width = self.content.shape[1]
        content = torch.zeros(ids.n_items, width) if content is None else content
        self.content = content.to(self.content.device)

    def item_vectors(self) -> Float[Tensor, "item hidden"]:
        """Return the vector of every item: its codes, its content, and what is its own.

        In training some items lose their own vector and some their content, so that both kinds of
        knowledge suffice alone; that is how new items are understood.
        """
        vectors = sum(
            embedding(self.codes[:, level]) for level, embedding in enumerate(self.code_inputs)
        )
        assert isinstance(vectors, Tensor)
        if self.config.n_content:
            mapped = self.content_map(self.content)
            vectors = vectors + self._drop_rows(mapped, self.config.content_dropout)
        own = self._drop_rows(self.own.weight, self.config.id_dropout)
        n_new = len(vectors) - len(own)
        return vectors + functional.pad(own, (0, 0, 0, n_new))

    def losses(self, batch: SequenceBatch) -> Losses:
        """Return the mean over targets: sum over levels for the codes, plus that of the items."""
        batch = batch.to(self.device)
        vectors = self.item_vectors()
        hidden = self.context(embed(vectors, batch.items))
        is_target = batch.is_target
        states, targets = hidden[is_target], batch.targets[is_target]
        code_loss = -self.code_logps(states, self.codes[targets]).mean()
        dense_loss = item_loss(
            states, vectors, targets, n_negatives=self.config.n_negatives, warm=self.warm
        )
        total = code_loss + dense_loss
        return Losses(total, {"codes": code_loss.detach(), "item": dense_loss.detach()})

    def code_logps(
        self, states: Float[Tensor, "row hidden"], codes: Int[Tensor, "row level"]
    ) -> Float[Tensor, " row"]:
        """Return the log-probability of each row's codes, summed over levels, in nats."""
        return self.level_logps(states, codes).sum(dim=1)

    def level_logps(
        self, states: Float[Tensor, "row hidden"], codes: Int[Tensor, "row level"]
    ) -> Float[Tensor, "row level"]:
        """Return the log-probability of every code of each row given those before it, in nats."""
        prefix = torch.zeros_like(states)
        inputs = []
        for level, embedding in enumerate(self.code_inputs):
            inputs.append(states + prefix)
            prefix = prefix + embedding(codes[:, level])
        hidden = self._decode(torch.stack(inputs, dim=1) + self.levels.weight)
        found = []
        for level, output in enumerate(self.code_outputs):
            logits = output(hidden[:, level])
            found.append(-functional.cross_entropy(logits, codes[:, level], reduction="none"))
        return torch.stack(found, dim=1)

    @torch.inference_mode()
    def read(
        self, histories: Sequences, vectors: Float[Tensor, "item hidden"] | None = None
    ) -> LazyReading:
        """Return the state after each history; `vectors` are all items', computed when absent."""
        vectors = self.item_vectors() if vectors is None else vectors
        items = pad(histories, self.config.max_items).to(self.device)
        return LazyReading(items, self.states_after(items, vectors), vectors)

    def states_after(
        self, items: Int[Tensor, "user place"], vectors: Float[Tensor, "item hidden"]
    ) -> Float[Tensor, "user hidden"]:
        """Return the state after the last item of each padded row."""
        hidden: Tensor = self.context(embed(vectors, items))
        return hidden[torch.arange(len(items), device=items.device), last_places(items)]

    @torch.inference_mode()
    def score_items(self, histories: Sequences) -> Float[Tensor, "user item"]:
        """Return the log-probability of every item by the dense head."""
        return self.dense_logps(self.read(histories))

    @torch.inference_mode()
    def dense_logps(self, reading: LazyReading) -> Float[Tensor, "user item"]:
        """Return the log-probability of every item by the dense head, in nats."""
        return (reading.states @ reading.vectors.T).log_softmax(dim=-1)

    @torch.inference_mode()
    def item_logps(
        self, reading: LazyReading, items: Int[Tensor, "user place"]
    ) -> Float[Tensor, "user place"]:
        """Return the log-probability of chosen items by their codes; -inf for -1."""
        n_users, n_places = items.shape
        rows = reading.states[:, None].expand(-1, n_places, -1).reshape(n_users * n_places, -1)
        logps = self.code_logps(rows, self.codes[items.clamp(min=0).reshape(-1)])
        return logps.view(n_users, n_places).masked_fill(items < 0, -torch.inf)

    def session_logps(
        self, histories: Sequences, sessions: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam"]:
        """Return the log-probability of several sessions per user, in nats, with gradients."""
        return self.session_code_logps(histories, sessions).sum(dim=(2, 3))

    def session_code_logps(
        self, histories: Sequences, sessions: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam place level"]:
        """Return the log-probability of every code of several sessions per user, in nats.

        Each item follows the history and the items before it. -1 after the end is no item: 0.
        """
        vectors = self.item_vectors()
        n_users, n_beams, n_places = sessions.shape
        history = pad(histories, self.config.max_items).to(self.device)
        rows = torch.cat([history[:, None].expand(-1, n_beams, -1), sessions], dim=2).flatten(0, 1)
        found = []
        for place in range(n_places):
            item = rows[:, history.shape[1] + place]
            before = keep_last(rows[:, : history.shape[1] + place], self.config.max_items)
            states = self.states_after(before, vectors)
            logps = self.level_logps(states, self.codes[item.clamp(min=0)])
            found.append(logps * (item >= 0)[:, None])
        return torch.stack(found, dim=1).view(n_users, n_beams, n_places, -1)

    def level_logits(
        self, inputs: Float[Tensor, "... hidden"], level: int
    ) -> Float[Tensor, "... code"]:
        """Return the logits of one level from state plus the sum of the prefix's code vectors."""
        found: Tensor = self.code_outputs[level](self._decode(inputs + self.levels.weight[level]))
        return found

    def _decode(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        for layer in self.decoder:
            hidden = layer(hidden)
        found: Tensor = self.decoder_norm(hidden)
        return found

    def _drop_rows(self, rows: Float[Tensor, "item hidden"], rate: float) -> Tensor:
        if not self.training or rate == 0:
            return rows
        keep = torch.rand(len(rows), 1, device=rows.device) >= rate
        return rows * keep


class _DecoderLayer(nn.Module):
    def __init__(self, config: LazyConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        self.feed = feed_forward(
            config.d_model,
            config.d_ff,
            config.dropout,
            n_experts=config.n_experts,
            n_active=config.n_active,
            balance_rate=config.balance_rate,
        )

    def forward(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        found: Tensor = hidden + self.feed(self.norm(hidden))
        return found
