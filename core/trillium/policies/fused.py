"""Norms and gated layers that read, write and keep less, put in the place of a model's own.

On a GPU a small model waits for memory, not for arithmetic, and most of what it moves belongs to
root-mean-square norms and to the product silu(gate) * up. Here a norm is one kernel that keeps its
input and one number per token, and the product is one kernel that keeps gate and up alone. On a
processor the gated layer keeps gate and up too, where autograd keeps four tensors of that width,
and gives the same bits as the module did. A module is replaced only when it is of a known form and
a trial on random input gives what the module itself gives; weights stay where they are, under
their names.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.autograd.graph import Node
from torch.nn import functional

from trillium.policies.lora import FastLora

# Numbers from which a kernel of our own pays.
_LARGE = 1 << 22
_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def fuse_layers(model: nn.Module, *, norms: bool = True) -> int:
    """Replace gated layers, and norms where asked to; returns how many modules were replaced.

    A model without data (device `meta`) has no trial: there the form decides alone.
    """
    n_replaced = 0
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            fused = _fuse(module, norms)
            if fused is not None and _agree(module, fused):
                setattr(parent, name, fused)
                n_replaced += 1
    return n_replaced


class FusedNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale, in one kernel."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        """Share `weight`."""
        super().__init__()
        self.weight = weight
        self.variance_epsilon = epsilon

    def forward(self, hidden: Float[Tensor, "*axis width"]) -> Float[Tensor, "*axis width"]:
        """Return hidden / rms(hidden) * weight; the mean is float32 whatever the dtype."""
        return functional.rms_norm(hidden, self.weight.shape, self.weight, self.variance_epsilon)


class FusedGatedLayer(nn.Module):
    """Compute down(silu(gate(x)) * up(x)) and keep gate(x) and up(x).

    On a GPU the layer `down` may keep the product; on a processor it is computed again from the
    two, which is little beside the three products of matrices.
    """

    def __init__(self, gate: nn.Module, up: nn.Module, down: nn.Module) -> None:
        """Share the three layers."""
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate, up, down

    def forward(self, x: Float[Tensor, "*axis width"]) -> Float[Tensor, "*axis width"]:
        """Return the layer's output."""
        product: Tensor = _GatedProduct.apply(self.gate_proj(x), self.up_proj(x))  # type: ignore[no-untyped-call]
        node = product.grad_fn
        if node is None or product.device.type != "cpu" or not isinstance(self.down_proj, FastLora):
            out: Tensor = self.down_proj(product)
            return out
        kept_little: Tensor = self.down_proj(product, again=partial(_product_of, node))
        return kept_little


class _GatedProduct(torch.autograd.Function):
    """silu(gate) * up, with both gradients from gate and up."""

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        gate, up = gate.detach(), up.detach()
        if gate.device.type == "cpu":
            return _multiply_rounded(gate, up)
        # Sampling computes few tokens at a time: a compiled kernel costs more than it saves.
        multiply = _multiply if gate.numel() < _LARGE else _compiled_product()[0]
        # One shape whatever the rows: compiled once, not once per rank, width 1 and so on.
        return multiply(gate.flatten(), up.flatten()).view(gate.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = _kept(ctx)
        del ctx.kept  # type: ignore[attr-defined]
        if grad.device.type == "cpu":
            for_gate = torch.ops.aten.silu_backward(grad * up, gate)
            return for_gate, grad * functional.silu(gate)
        slopes = _compiled_product()[1]
        for_gate, for_up = slopes(*(each.flatten() for each in (grad.detach(), gate, up)))
        return for_gate.view(gate.shape), for_up.view(up.shape)


def _product_of(node: Node) -> Tensor:
    """Compute the product of a `_GatedProduct` again from what it keeps."""
    return _multiply_rounded(*_kept(node))


def _kept(ctx: FunctionCtx | Node) -> tuple[Tensor, Tensor]:
    """Return gate and up; where activations are recomputed, they may be asked for only once."""
    if not hasattr(ctx, "kept"):
        gate, up = ctx.saved_tensors  # type: ignore[union-attr]
        ctx.kept = gate.detach(), up.detach()  # type: ignore[union-attr]
    found: tuple[Tensor, Tensor] = ctx.kept  # type: ignore[union-attr]
    return found


def _multiply_rounded(gate: Tensor, up: Tensor) -> Tensor:
    """Round silu and product, as a model's own layer does: to the same bits."""
    return functional.silu(gate) * up


def _multiply(gate: Tensor, up: Tensor) -> Tensor:
    """Round once, as the compiled kernel does: policy and reference must agree at step 0."""
    return (functional.silu(gate.float()) * up.float()).to(gate.dtype)


def _slopes(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up; d silu(g) = s (1 + g (1 - s)), s = sigmoid(g)."""
    exact, wide = gate.float(), grad.float()
    s = torch.sigmoid(exact)
    for_gate = wide * up.float() * s * (1 + exact * (1 - s))
    return for_gate.to(gate.dtype), (wide * exact * s).to(up.dtype)


@cache
def _compiled_product() -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]:
    """Return both functions as one kernel each, for every length at once."""
    return torch.compile(_multiply, dynamic=True), torch.compile(_slopes, dynamic=True)


def _fuse(module: nn.Module, norms: bool) -> nn.Module | None:
    """Return what would take the module's place; None for a module that stays."""
    epsilon = getattr(module, "variance_epsilon", None)
    weight = getattr(module, "weight", None)
    if type(module).__name__.endswith("RMSNorm") and isinstance(epsilon, float):
        if norms and isinstance(weight, nn.Parameter) and len(list(module.parameters())) == 1:
            return FusedNorm(weight, epsilon)
        return None
    children = dict(module.named_children())
    if set(children) == _GATED and type(children["act_fn"]).__name__.startswith("SiLU"):
        return FusedGatedLayer(*(children[f"{name}_proj"] for name in ("gate", "up", "down")))
    return None


@torch.no_grad()
def _agree(module: nn.Module, fused: nn.Module) -> bool:
    """Say whether both give the same on random input, up to rounding."""
    parameter = next(module.parameters())
    if parameter.device.type == "meta":
        return True
    width = _input_width(module)
    generator = torch.Generator().manual_seed(0)
    dtype = parameter.dtype if parameter.dtype.is_floating_point else torch.bfloat16
    x = torch.randn(4, width, generator=generator).to(parameter.device, dtype)
    own, ours = module(x).float(), fused(x).float()
    tolerance = 1e-5 if dtype in (torch.float32, torch.float64) else 2e-2
    return bool((own - ours).norm() <= tolerance * own.norm())


def _input_width(module: nn.Module) -> int:
    gate = getattr(module, "gate_proj", None)
    if isinstance(gate, nn.Linear):
        return gate.in_features
    weight = module.weight
    assert isinstance(weight, Tensor)
    return len(weight)
