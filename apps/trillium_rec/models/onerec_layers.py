"""The size of a OneRec, its encoder, and the layers of encoder and decoder."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from trillium_rec.models.attention import Attention, Memory
from trillium_rec.models.experts import FeedForward, feed_forward


class OneRecConfig(PreTrainedConfig):
    """Choose the size of a OneRec; tokens are codes by level, then BOS, then padding."""

    model_type = "trillium_onerec"
    # What `generate` looks for when it makes its cache.
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "n_decoder_layers",
        "num_attention_heads": "n_heads",
        "hidden_size": "d_model",
    }

    sizes: list[int] | None = None
    ids_version: str = ""
    n_items: int = 1
    d_model: int = 128
    d_head: int = 64
    n_heads: int = 6
    d_ff: int = 1024
    n_encoder_layers: int = 4
    n_decoder_layers: int = 4
    max_items: int = 256
    n_session: int = 5
    n_experts: int = 24
    n_active: int = 2
    balance_rate: float = 0.001
    dropout: float = 0.1
    is_encoder_decoder: bool = True
    use_cache: bool = True
    vocab_size: int = 0
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        """Number the tokens."""
        n_codes = sum(self.sizes or [])
        self.vocab_size = n_codes + 2
        self.bos_token_id = self.decoder_start_token_id = n_codes
        self.pad_token_id = n_codes + 1
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]


class EncoderLayer(nn.Module):
    """Self-attention over the whole history, and a feed-forward layer."""

    def __init__(self, config: OneRecConfig) -> None:
        """Build the parts."""
        super().__init__()
        width = config.d_model
        self.attend_norm, self.feed_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attend = Attention(width, config.n_heads, config.d_head)
        self.feed = FeedForward(width, config.d_ff, config.dropout, "relu")
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden: Float[Tensor, "user token hidden"], mask: Bool[Tensor, "user 1 1 token"]
    ) -> Float[Tensor, "user token hidden"]:
        """Return the states of all tokens."""
        normed = self.attend_norm(hidden)
        hidden = hidden + self.dropout(self.attend.mix(normed, self.attend.remember(normed), mask))
        found: Tensor = hidden + self.feed(self.feed_norm(hidden))
        return found


class Encoder(nn.Module):
    """Read the tokens of histories, newest item last, padded at the end."""

    main_input_name = "input_ids"

    def __init__(self, config: OneRecConfig, tokens: nn.Embedding) -> None:
        """Build with the token vectors that the decoder uses too."""
        super().__init__()
        self.tokens = tokens
        self.n_levels = len(config.sizes or [])
        self.recency = nn.Embedding(config.max_items, config.d_model)
        self.level = nn.Embedding(max(1, self.n_levels), config.d_model)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.n_encoder_layers)])
        self.norm = nn.RMSNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: Int[Tensor, "user token"],
        attention_mask: Int[Tensor, "user token"],
        **_: object,
    ) -> BaseModelOutput:
        """Return one state per token; extra arguments of `generate` have no effect."""
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        n_items = attention_mask.sum(dim=1, keepdim=True) // self.n_levels
        back = (n_items - 1 - place // self.n_levels).clamp(min=0)
        hidden = self.tokens(input_ids) + self.recency(back) + self.level(place % self.n_levels)
        hidden = self.dropout(hidden)
        mask = attention_mask.bool()[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return BaseModelOutput(last_hidden_state=self.norm(hidden))


class DecoderLayer(nn.Module):
    """Self-attention by beam, cross-attention by user, and a mixture of experts."""

    def __init__(self, config: OneRecConfig) -> None:
        """Build the parts."""
        super().__init__()
        width = config.d_model
        self.self_norm, self.cross_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.feed_norm = nn.RMSNorm(width)
        self.attend = Attention(width, config.n_heads, config.d_head)
        self.cross = Attention(width, config.n_heads, config.d_head)
        self.dropout = nn.Dropout(config.dropout)
        self.feed = feed_forward(
            width,
            config.d_ff,
            config.dropout,
            n_experts=config.n_experts,
            n_active=config.n_active,
            balance_rate=config.balance_rate,
            activation="relu",
        )

    def forward(
        self,
        hidden: Float[Tensor, "user beam token hidden"],
        number: int,
        memory: Memory,
        causal: Bool[Tensor, "token past"] | None,
        mask: Bool[Tensor, "user 1 1 token"],
    ) -> Float[Tensor, "user beam token hidden"]:
        """Return the states of new tokens; `memory` grows by them."""
        shape = hidden.shape
        rows = hidden.flatten(0, 1)
        normed = self.self_norm(rows)
        own = memory.extend(number, self.attend.remember(normed))
        rows = rows + self.dropout(self.attend.mix(normed, own, causal))
        # All beams of a user query that user's history together; it is never copied.
        by_user = rows.view(shape[0], shape[1] * shape[2], shape[3])
        history = memory.of_encoder(number, self.cross)
        by_user = by_user + self.dropout(self.cross.mix(self.cross_norm(by_user), history, mask))
        found: Tensor = by_user + self.feed(self.feed_norm(by_user))
        return found.view(shape)
