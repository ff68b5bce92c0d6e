"""Feed-forward layers: one for all tokens, or a sparse mixture of experts.

OneRec's mixture (arXiv 2502.18965, Eq. 6 to 8): s = softmax(H e), the K largest scores are gates as
they are, not renormalised, and no token is dropped. The paper does not say how load is balanced;
here a bias per expert, used for the choice and not for the gate, rises while the expert gets less
than its share (arXiv 2408.15664). A rate of 0 is the paper as written.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["gelu", "relu"]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
}


class FeedForward(nn.Module):
    """Two linear maps with an activation between them."""

    activate: Callable[[Tensor], Tensor]

    def __init__(
        self, d_model: int, d_ff: int, dropout: float, activation: Activation = "gelu"
    ) -> None:
        """Build the layer."""
        super().__init__()
        self.activate = _ACTIVATIONS[activation]
        self.widen = nn.Linear(d_model, d_ff)
        self.narrow = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Return what is to be added to the residual stream."""
        found: Tensor = self.dropout(self.narrow(self.activate(self.widen(hidden))))
        return found


class MixtureOfExperts(nn.Module):
    """N feed-forward experts, the best K of them for every token.

    `load` counts the tokens each expert got since `forget_load`, in training and out of it.
    """

    bias: Tensor
    activate: Callable[[Tensor], Tensor]

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        dropout: float,
        *,
        n_experts: int,
        n_active: int,
        balance_rate: float,
        activation: Activation = "gelu",
    ) -> None:
        """Build the experts with the initial scale of linear layers."""
        super().__init__()
        self.n_active, self.balance_rate = n_active, balance_rate
        self.activate = _ACTIVATIONS[activation]
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.widen = nn.Parameter(torch.empty(n_experts, d_model, d_ff))
        self.narrow = nn.Parameter(torch.empty(n_experts, d_ff, d_model))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("bias", torch.zeros(n_experts))
        # No buffer: loading a model leaves buffers that are not saved without values.
        self.load = torch.zeros(n_experts, dtype=torch.int64, device="cpu")

    def forward(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Return the gated sum of the chosen experts; work grows with K, not with N."""
        tokens = hidden.reshape(-1, hidden.shape[-1])
        scores = self.router(tokens).softmax(dim=-1)
        chosen = (scores + self.bias).topk(self.n_active, dim=-1).indices
        gates = scores.gather(1, chosen)
        counts = torch.bincount(chosen.reshape(-1), minlength=len(self.bias))
        in_memory = counts.cpu()
        mixed = self._mix(tokens, chosen, gates, in_memory.tolist())
        self.load += in_memory
        self._balance(counts)
        found: Tensor = self.dropout(mixed).view_as(hidden)
        return found

    def forget_load(self) -> None:
        """Begin counting anew."""
        self.load.zero_()

    def _mix(
        self,
        tokens: Float[Tensor, "token hidden"],
        chosen: Int[Tensor, "token active"],
        gates: Float[Tensor, "token active"],
        counts: list[int],
    ) -> Float[Tensor, "token hidden"]:
        """Give every expert its tokens in one run, whatever their number."""
        order = chosen.reshape(-1).argsort(stable=True)
        owner = order // self.n_active
        gathered = tokens[owner]
        found = []
        end = 0
        for expert, count in enumerate(counts):
            begin, end = end, end + count
            if count:
                part = gathered[begin:end]
                found.append(self.activate(part @ self.widen[expert]) @ self.narrow[expert])
        weighted = torch.cat(found) * gates.reshape(-1)[order, None]
        return torch.zeros_like(tokens).index_add(0, owner, weighted)

    @torch.no_grad()  # counts, not gradients, move the bias
    def _balance(self, counts: Int[Tensor, " expert"]) -> None:
        if self.training and self.balance_rate > 0:
            self.bias += self.balance_rate * (counts.float().mean() - counts).sign()


def feed_forward(
    d_model: int,
    d_ff: int,
    dropout: float,
    *,
    n_experts: int,
    n_active: int,
    balance_rate: float,
    activation: Activation = "gelu",
) -> FeedForward | MixtureOfExperts:
    """Return a mixture, or one layer for all tokens when there are no experts."""
    if n_experts == 0:
        return FeedForward(d_model, d_ff, dropout, activation)
    return MixtureOfExperts(
        d_model,
        d_ff,
        dropout,
        n_experts=n_experts,
        n_active=n_active,
        balance_rate=balance_rate,
        activation=activation,
    )


def forget_loads(model: nn.Module) -> None:
    """Begin counting anew in every mixture of a model."""
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            module.forget_load()


def expert_loads(model: nn.Module) -> list[list[float]]:
    """Return, for each mixture of a model, the share of the tokens that each expert got."""
    found = []
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            total = max(1, int(module.load.sum()))
            found.append([count / total for count in module.load.tolist()])
    return found


def start_weights(module: nn.Module, spread: float) -> None:
    """Draw the weights of one module: normal with `spread`, biases zero, norms one."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=spread)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, MixtureOfExperts):
        nn.init.normal_(module.widen, std=spread)
        nn.init.normal_(module.narrow, std=spread)
