"""OneRec's encoder-decoder (arXiv 2502.18965, Section 3.2): sessions of semantic ids.

The encoder reads the codes of the history. The decoder writes a session, with a BOS before every
item: BOS s11 .. s1L BOS s21 .. s2L. Every feed-forward layer of the decoder is a mixture of
experts. The loss is the sum over codes of -log P, a mean over items.
Reading: the paper calls it T5-style and leaves details open; norms and ReLU are those of T5,
positions are learned, by level and, in the encoder, by distance from the newest item. Each level
has its own softmax, because which level comes next is known.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import EncoderDecoderCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from trillium_rec.models.attention import BeamMemory, Memory
from trillium_rec.models.batches import SequenceBatch, SessionBatch, pad
from trillium_rec.models.experts import start_weights
from trillium_rec.models.generate_memory import GenerateMemory
from trillium_rec.models.onerec_layers import DecoderLayer, Encoder, OneRecConfig
from trillium_rec.models.sasrec import Losses
from trillium_rec.semantic_ids import SemanticIds
from trillium_rec.splits import Sequences


@dataclass(frozen=True)
class Reading:
    """Hold what the encoder found for each user, and which tokens are real."""

    encoded: Float[Tensor, "user token hidden"]
    mask: Bool[Tensor, "user 1 1 token"]


# Groups of users that are encoded apart: enough to pad little, each large enough for fast products.
_MOST_GROUPS, _LEAST_TOGETHER = 8, 4


class OneRec(PreTrainedModel, GenerationMixin):
    """Write sessions for users; `generate` works on it, the decoders of this package are faster."""

    config_class = OneRecConfig
    base_model_prefix = "onerec"
    main_input_name = "input_ids"
    _tied_weights_keys = {"encoder.tokens.weight": "tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True

    codes: Tensor

    def __init__(self, config: OneRecConfig) -> None:
        """Build with random weights; `set_catalogue` gives it the items' codes."""
        super().__init__(config)
        sizes = config.sizes or []
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config, self.tokens)
        n_places = config.n_session * (len(sizes) + 1)
        self.places = nn.Embedding(n_places, config.d_model)
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.n_decoder_layers)])
        self.norm = nn.RMSNorm(config.d_model)
        self.heads = nn.ModuleList([nn.Linear(config.d_model, n, bias=False) for n in sizes])
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("codes", torch.zeros(config.n_items, len(sizes), dtype=torch.int64))
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        start_weights(module, 0.05)

    def get_encoder(self, modality: str | None = None) -> Encoder:
        """Return the encoder; `generate` runs it once."""
        return self.encoder

    def set_catalogue(self, ids: SemanticIds) -> None:
        """Take over the codes of all items, new ones included."""
        self.config.n_items = ids.n_items
        self.config.ids_version = ids.version
        self.codes = torch.from_numpy(ids.codes).to(self.codes.device)

    @property
    def n_levels(self) -> int:
        """Count the codes of an item."""
        return len(self.heads)

    def item_tokens(self, items: Int[Tensor, "..."]) -> Int[Tensor, "... level"]:
        """Return the tokens of items; padding for -1."""
        offsets = torch.tensor([0, *self.config.sizes[:-1]], device=items.device).cumsum(0)
        tokens = self.codes[items.clamp(min=0)] + offsets
        return tokens.masked_fill((items < 0)[..., None], self.config.pad_token_id)

    def read(self, histories: Sequences) -> Reading:
        """Encode the last items of each history; users of like length together, to pad little."""
        items = pad(histories, self.config.max_items)
        n_items = (items >= 0).sum(dim=1)
        order = n_items.argsort()
        parts = []
        size = max(_LEAST_TOGETHER, -(-len(order) // _MOST_GROUPS))
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            width = max(1, int(n_items[rows].max()))
            part = self._read(items[rows, :width].to(self.device))
            parts.append(_widen(part, items.shape[1] * self.n_levels))
        place = order.argsort().to(self.device)
        return Reading(
            torch.cat([part.encoded for part in parts])[place],
            torch.cat([part.mask for part in parts])[place],
        )

    def losses(self, batch: SequenceBatch | SessionBatch) -> Losses:
        """Return the loss of one session per user.

        Sequences without sessions are cut at a place drawn at random; the session is what follows.
        """
        batch = batch.to(self.device)
        if isinstance(batch, SequenceBatch):
            batch = self._cut(batch)
        loss = self.session_losses(batch.history, batch.session)
        return Losses(loss, {"codes": loss.detach()})

    def session_losses(
        self, history: Int[Tensor, "user item"], session: Int[Tensor, "user place"]
    ) -> Float[Tensor, ""]:
        """Return -log P of the sessions' codes, a mean over items; -1 is padding in both."""
        logps = self.session_logps(self._read(history), session[:, None])
        return -logps.sum() / (session >= 0).sum()

    def session_logps(
        self, reading: Reading, sessions: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam"]:
        """Return the log-probability of several sessions per user, in nats."""
        return self.session_code_logps(reading, sessions).sum(dim=(2, 3))

    def session_code_logps(
        self, reading: Reading, sessions: Int[Tensor, "user beam place"]
    ) -> Float[Tensor, "user beam place level"]:
        """Return the log-probability of every code of several sessions per user, in nats.

        Users are encoded once, however many sessions they have. -1 after the end is no item: 0.
        """
        tokens = self._write(sessions)
        memory = BeamMemory(reading.encoded)
        hidden = self.decode(tokens, memory, reading.mask)
        width, found = self.n_levels + 1, []
        is_item = sessions >= 0
        for level, head in enumerate(self.heads):
            logits = head(hidden[:, :, level::width])
            codes = self.codes[sessions.clamp(min=0)][..., level]
            logps = logits.float().log_softmax(dim=-1).gather(-1, codes[..., None])[..., 0]
            found.append(logps * is_item)
        return torch.stack(found, dim=-1)

    def decode(
        self,
        tokens: Int[Tensor, "user beam token"],
        memory: Memory,
        mask: Bool[Tensor, "user 1 1 token"],
    ) -> Float[Tensor, "user beam token hidden"]:
        """Return the states of new tokens; what came before is in `memory`, which grows."""
        n_users, n_beams, n_tokens = tokens.shape
        n_past = memory.n_past
        places = torch.arange(n_past, n_past + n_tokens, device=tokens.device)
        hidden = self.dropout(self.tokens(tokens) + self.places(places))
        causal = None
        if n_tokens > 1:
            shape = n_tokens, n_past + n_tokens
            causal = torch.ones(shape, dtype=torch.bool, device=tokens.device).tril(n_past)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, number, memory, causal, mask)
        found: Tensor = self.norm(hidden)
        return found.view(n_users, n_beams, n_tokens, -1)

    def forward(
        self,
        input_ids: Int[Tensor, "row token"] | None = None,
        attention_mask: Int[Tensor, "row token"] | None = None,
        decoder_input_ids: Int[Tensor, "row place"] | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        **_: object,
    ) -> Seq2SeqLMOutput:
        """Return logits over all tokens, -inf for those of other levels: what `generate` asks."""
        assert attention_mask is not None
        assert decoder_input_ids is not None
        if encoder_outputs is None:
            assert input_ids is not None
            encoder_outputs = self.encoder(input_ids, attention_mask)
        encoded = encoder_outputs[0]
        memory = GenerateMemory(encoded, past_key_values)
        n_past = memory.n_past
        mask = attention_mask.bool()[:, None, None]
        hidden = self.decode(decoder_input_ids[:, None], memory, mask)[:, 0]
        logits = self._token_logits(hidden, n_past)
        return Seq2SeqLMOutput(
            logits=logits, past_key_values=past_key_values, encoder_last_hidden_state=encoded
        )

    def _cut(self, batch: SequenceBatch) -> SessionBatch:
        n_targets = batch.is_target.sum(dim=1)
        place = (torch.rand(len(n_targets), device=self.device) * n_targets).long()
        columns = torch.arange(batch.items.shape[1], device=self.device)
        history = batch.items.masked_fill(columns > place[:, None], -1)
        ahead = place[:, None] + torch.arange(self.config.n_session, device=self.device)
        session = batch.targets.gather(1, ahead.clamp(max=batch.targets.shape[1] - 1))
        return SessionBatch(history, session.masked_fill(ahead >= batch.targets.shape[1], -1))

    def _read(self, items: Int[Tensor, "user item"]) -> Reading:
        tokens = self.item_tokens(items).flatten(1)
        attended = tokens != self.config.pad_token_id
        # A user without history attends one padding token, so that no softmax is empty.
        attended[:, 0] = True
        encoded = self.encoder(tokens, attended.long()).last_hidden_state
        return Reading(encoded, attended[:, None, None])

    def _write(self, sessions: Int[Tensor, "user beam place"]) -> Int[Tensor, "user beam token"]:
        tokens = self.item_tokens(sessions)
        bos = torch.full_like(tokens[..., :1], self.config.bos_token_id)
        return torch.cat([bos, tokens], dim=-1).flatten(2)

    def _token_logits(
        self, hidden: Float[Tensor, "row place hidden"], n_past: int
    ) -> Float[Tensor, "row place token"]:
        """Return logits over all tokens; a place allows those of its level, or BOS, alone."""
        logits = hidden.new_full((*hidden.shape[:2], self.config.vocab_size), -torch.inf)
        places = torch.arange(n_past, n_past + hidden.shape[1], device=hidden.device)
        level_of = places % (self.n_levels + 1)
        begin = 0
        for level, head in enumerate(self.heads):
            end = begin + self.config.sizes[level]
            logits[:, level_of == level, begin:end] = head(hidden[:, level_of == level])
            begin = end
        logits[:, level_of == self.n_levels, self.config.bos_token_id] = 0.0
        return logits


def _widen(reading: Reading, n_tokens: int) -> Reading:
    """Return a reading with padding up to `n_tokens`, which nobody attends."""
    more = n_tokens - reading.encoded.shape[1]
    return Reading(
        functional.pad(reading.encoded, (0, 0, 0, more)), functional.pad(reading.mask, (0, more))
    )
