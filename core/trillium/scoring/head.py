"""Token statistics from hidden states and a language-model head, chunk by chunk.

No tensor of [slots, vocabulary] larger than one chunk is ever alive. Two gradient rules:

one pass    the head is one frozen matrix and only `logp` is asked for: the forward pass leaves
            d logp / d hidden behind, so that the backward pass multiplies and nothing else
recompute   everything else (several statistics, a trainable or adapted head, a softcap): each chunk
            is checkpointed and its logits are computed again in the backward pass, with the head's
            adapter and dropout of the forward pass

Whatever the model's dtype, softmax and statistics are float32 (float64 for a float64 head).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint

from trillium.errors import ConfigError, ShapeError

Statistic = Literal["logp", "entropy", "kl_to_reference", "reverse_kl", "is_argmax", "top_k"]
DIVERGENCES: frozenset[Statistic] = frozenset({"kl_to_reference", "reverse_kl"})
LOGP_ONLY: frozenset[Statistic] = frozenset({"logp"})
# Slots whose logits are in memory at once. A GPU wants larger products.
CHUNKS = {"cpu": 256, "cuda": 1024}
N_TOP = 20


@dataclass(frozen=True)
class Head:
    """Turn hidden states into logits: softcap * tanh(scale * linear(hidden) / softcap)."""

    linear: nn.Module
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Float[Tensor, "slot hidden"]) -> Float[Tensor, "slot vocab"]:
        """Return logits in float32 or better."""
        weight = self.linear.weight
        # Mamba keeps its residual stream in float32 whatever the weights are in.
        if isinstance(weight, Tensor) and weight.is_floating_point():
            hidden = hidden.to(weight.dtype)
        raw: Tensor = self.linear(hidden)
        logits = raw.to(precise_dtype(raw.dtype)) * self.scale
        if self.softcap is None:
            return logits
        return self.softcap * torch.tanh(logits / self.softcap)

    @property
    def frozen_matrix(self) -> Float[Tensor, "vocab hidden"] | None:
        """Return the weight when the head is one frozen matrix, else None."""
        linear = self.linear
        is_plain = type(linear) is nn.Linear and linear.bias is None and self.softcap is None
        if not is_plain or not isinstance(linear.weight, Tensor) or linear.weight.requires_grad:
            return None
        return linear.weight if linear.weight.is_floating_point() else None


@dataclass(frozen=True)
class TopTokens:
    """Hold the most likely tokens of each slot, best first, with their log-probabilities."""

    ids: Int[Tensor, "slot top"]
    logps: Float[Tensor, "slot top"]


@dataclass(frozen=True)
class TokenStatistics:
    """Hold one value per slot and statistic; `top` is there when `top_k` was asked for.

    `is_argmax` is 1 where the target is the most likely token, else 0; like `top` it has no
    gradient.
    """

    values: Mapping[str, Float[Tensor, " slot"]]
    top: TopTokens | None = None


def token_statistics(
    head: Head,
    hidden: Float[Tensor, "slot hidden"],
    target: Int[Tensor, " slot"],
    *,
    statistics: frozenset[Statistic] = LOGP_ONLY,
    reference_hidden: Float[Tensor, "slot hidden"] | None = None,
    kl_temperature: float = 1.0,
    chunk: int | None = None,
) -> TokenStatistics:
    """Return the statistics asked for, and no others, for the distribution p at each slot.

        logp             log p(target)
        entropy          - sum_v p(v) log p(v)
        kl_to_reference  sum_v q(v) (log q(v) - log p(v)), q from `reference_hidden` and this head,
                         both at `kl_temperature`
        reverse_kl       sum_v p(v) (log p(v) - log q(v)), likewise

    In nats. Raises ConfigError for an unknown statistic and ShapeError when a divergence is asked
    for without the reference's hidden states.
    """
    _check(statistics, hidden, reference_hidden)
    chunk = chunk or CHUNKS.get(hidden.device.type, CHUNKS["cpu"])
    matrix = head.frozen_matrix
    if statistics == LOGP_ONLY and matrix is not None:
        hidden = hidden.to(matrix.dtype)
        return TokenStatistics({"logp": _one_pass(hidden, matrix, target, head.scale, chunk)})
    pieces = []
    for start in range(0, max(len(target), 1), chunk):
        part = slice(start, start + chunk)
        other = None if reference_hidden is None else reference_hidden[part]
        arguments = (head, hidden[part], target[part], statistics, other, kl_temperature)
        # Not under no_grad, where a checkpoint only costs time.
        if torch.is_grad_enabled():
            piece: dict[str, Tensor] = checkpoint(
                _chunk_statistics,
                *arguments,
                use_reentrant=False,
                preserve_rng_state=hasattr(head.linear, "lora_dropout"),
                context_fn=partial(_same_adapter_twice, head.linear),
            )
        else:
            piece = _chunk_statistics(*arguments)
        pieces.append(piece)
    joined = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    top = None
    if "top_k" in statistics:
        top = TopTokens(joined.pop("top_ids"), joined.pop("top_logps"))
    return TokenStatistics(joined, top)


def precise_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for softmax and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(
    statistics: frozenset[Statistic],
    hidden: Float[Tensor, "slot hidden"],
    reference_hidden: Float[Tensor, "slot hidden"] | None,
) -> None:
    unknown = statistics - set(get_args(Statistic))
    if unknown:
        raise ConfigError(
            f"token_statistics: no statistic is called {', '.join(sorted(unknown))} "
            f"(there are {', '.join(get_args(Statistic))}); ask for those"
        )
    asked = sorted(statistics & DIVERGENCES)
    if not asked:
        return
    if reference_hidden is None or reference_hidden.shape != hidden.shape:
        given = "none" if reference_hidden is None else str(tuple(reference_hidden.shape))
        raise ShapeError(
            f"token_statistics: {asked[0]} needs reference hidden states of shape "
            f"{tuple(hidden.shape)}, got {given}; score the same batch with the reference"
        )


def _chunk_statistics(
    head: Head,
    hidden: Float[Tensor, "part hidden"],
    target: Int[Tensor, " part"],
    statistics: frozenset[Statistic],
    reference_hidden: Float[Tensor, "part hidden"] | None,
    kl_temperature: float,
) -> dict[str, Tensor]:
    logits = head.logits(hidden)
    log_p = torch.log_softmax(logits, dim=-1)
    found: dict[str, Tensor] = {}
    if "logp" in statistics:
        found["logp"] = log_p.gather(-1, target[:, None])[:, 0]
    if "entropy" in statistics:
        found["entropy"] = -(log_p.exp() * log_p).sum(-1)
    if reference_hidden is not None and statistics & DIVERGENCES:
        with torch.no_grad():
            log_q = torch.log_softmax(head.logits(reference_hidden) / kl_temperature, dim=-1)
        is_plain = kl_temperature == 1.0
        tempered = log_p if is_plain else torch.log_softmax(logits / kl_temperature, dim=-1)
        if "kl_to_reference" in statistics:
            found["kl_to_reference"] = (log_q.exp() * (log_q - tempered)).sum(-1)
        if "reverse_kl" in statistics:
            found["reverse_kl"] = (tempered.exp() * (tempered - log_q)).sum(-1)
    if "is_argmax" in statistics:
        found["is_argmax"] = (log_p.argmax(-1) == target).to(log_p.dtype)
    if "top_k" in statistics:
        top = log_p.detach().topk(min(N_TOP, log_p.shape[-1]), dim=-1)
        found["top_ids"], found["top_logps"] = top.indices, top.values
    return found


# PEFT's own switches would also change what requires a gradient.
_SWITCHES = ("_active_adapter", "_disable_adapters")


def _same_adapter_twice(
    linear: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a chunk and its repetition: by then another adapter may be active."""
    now = {name: getattr(linear, name) for name in _SWITCHES if hasattr(linear, name)}
    return nullcontext(), _switched(linear, now)


@contextmanager
def _switched(linear: nn.Module, switches: Mapping[str, object]) -> Iterator[None]:
    before = {name: getattr(linear, name) for name in switches}
    for name, value in switches.items():
        setattr(linear, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(linear, name, value)


class _OnePass(torch.autograd.Function):
    """Log-probabilities of the targets; the backward pass is one product per slot."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        matrix: Tensor,
        target: Tensor,
        scale: float,
        chunk: int,
    ) -> Tensor:
        """Return log p(target) and keep its gradient with respect to `hidden`."""
        logps, slope = _walk_chunks(hidden, matrix, target, scale, chunk, with_slope=True)
        assert slope is not None
        ctx.save_for_backward(slope)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return grad * d logp / d hidden."""
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return (grad[:, None] * slope).to(slope.dtype), None, None, None, None


def _one_pass(
    hidden: Float[Tensor, "slot hidden"],
    matrix: Float[Tensor, "vocab hidden"],
    target: Int[Tensor, " slot"],
    scale: float,
    chunk: int,
) -> Float[Tensor, " slot"]:
    hidden = hidden.to(matrix.dtype)
    if torch.is_grad_enabled() and hidden.requires_grad:
        logps: Tensor = _OnePass.apply(hidden, matrix, target, scale, chunk)  # type: ignore[no-untyped-call]
        return logps
    return _walk_chunks(hidden, matrix, target, scale, chunk, with_slope=False)[0]


def _walk_chunks(
    hidden: Tensor, matrix: Tensor, target: Tensor, scale: float, chunk: int, *, with_slope: bool
) -> tuple[Float[Tensor, " slot"], Float[Tensor, "slot hidden"] | None]:
    """Return log p(target) and, if asked, its derivative by the hidden state.

        d logp / d hidden = scale * (onehot(target) - p) W

    Two buffers of one chunk serve all chunks: fresh pages for each would cost as much as the
    softmax itself.
    """
    precise = precise_dtype(matrix.dtype)
    n_slots, n_rows = len(target), min(chunk, len(target))
    logps = hidden.new_empty(n_slots, dtype=precise)
    slope = torch.empty_like(hidden) if with_slope else None
    raw = matrix.new_empty(n_rows, matrix.shape[0])
    exact = raw if matrix.dtype == precise else raw.new_empty(raw.shape, dtype=precise)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, n_slots, chunk):
            part = slice(start, min(start + chunk, n_slots))
            size = part.stop - start
            narrow, p = raw[:size], exact[:size]
            torch.mm(hidden[part], matrix.T, out=narrow)
            if exact is not raw:
                p.copy_(narrow)
            if scale != 1.0:
                p.mul_(scale)
            picked = target[part, None]
            peak = p.amax(-1, keepdim=True)
            chosen = p.gather(-1, picked).sub_(peak)
            total = p.sub_(peak).exp_().sum(-1, keepdim=True)
            logps[part] = chosen.sub_(total.log())[:, 0]
            if slope is None:
                continue
            # One is taken off before rounding to the head's dtype: p - 1 stays exact near p = 1.
            p.mul_(-scale / total).scatter_add_(-1, picked, torch.full_like(total, scale))
            if exact is not raw:
                narrow.copy_(p)
            torch.mm(narrow, matrix, out=slope[part])
    return logps, slope
