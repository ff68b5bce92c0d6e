"""LoRA layers that compute in the base layer's precision and learn in float32.

PEFT keeps adapters in float32, which training needs: an update of 1e-5 is lost in bfloat16. But it
also casts every activation to float32, once per adapted layer, and keeps the copies for the
backward pass. Here the two small matrices are rounded to the dtype of the layer's output instead:

    out + scaling * dropout(x) A^T B^T      A, B rounded to out.dtype; gradients of A, B in float32

What that costs: products see A and B with the 8 bits of bfloat16 (relative error 2^-9, as the base
weights do); the sums inside each product are float32, and A and B themselves, which the optimizer
updates, lose nothing. Under a float32 base the result is that of PEFT.

The layers plug into PEFT by its custom module table and save, load, merge and switch as PEFT's do.
"""

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def use_fast_layers(config: LoraConfig) -> None:
    """Make PEFT build the layers of this module for `config`."""
    table: dict[type[nn.Module], type[nn.Module]] = {}
    if importlib.util.find_spec("bitsandbytes") is not None:
        table |= _quantised_layers()
    config._register_custom_module({**table, nn.Linear: FastLinear})


def add_low_rank(
    out: Float[Tensor, "*axis out"],
    x: Float[Tensor, "*axis in"],
    a: Float[Tensor, "rank in"],
    b: Float[Tensor, "out rank"],
    scaling: float,
    again: Callable[[], Tensor] | None = None,
) -> Float[Tensor, "*axis out"]:
    """Return out + scaling * x A^T B^T, computed in the dtype of `out`.

    The backward pass needs x: it is kept, or computed again by `again`.
    """
    if torch.is_grad_enabled():
        result: Tensor = _AddLowRank.apply(out, x, a, b, scaling, again)  # type: ignore[no-untyped-call]
        return result
    # Sampling pays for every call, not for arithmetic: no graph, no context.
    rows, narrow_a, narrow_b = _narrow(out, x, a, b, scaling)
    with _full_precision(out.device):
        return torch.addmm(out.reshape(-1, out.shape[-1]), rows @ narrow_a.T, narrow_b.T).view(
            out.shape
        )


def _narrow(
    out: Tensor, x: Tensor, a: Tensor, b: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x as rows, A, and scaling * B, in the dtype of `out`."""
    dtype = out.dtype
    return x.reshape(-1, x.shape[-1]).to(dtype), a.to(dtype), (b * scaling).to(dtype)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep autocast from rounding inside, where it is on at all: asking is cheap, entering not."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class FastLora:
    """What the layers of this module have in common: their `forward` takes `again`.

    `again` computes the layer's input a second time, which is then not kept for the backward pass.
    """


class FastLinear(FastLora, PeftLinear):
    """LoRA around a dense layer; anything but plain LoRA is left to PEFT."""

    def forward(
        self,
        x: Tensor,
        *args: object,
        again: Callable[[], Tensor] | None = None,
        **kwargs: object,
    ) -> Tensor:
        """Return base(x) plus the update; other arguments belong to PEFT's variants of LoRA."""
        if args or kwargs or not _is_plain(self):
            return super().forward(x, *args, **kwargs)
        return _add_updates(self, self.base_layer(x), x, again)


def _quantised_layers() -> Mapping[type[nn.Module], type[nn.Module]]:
    from bitsandbytes.nn.modules import Linear4bit
    from peft.tuners.lora import Linear4bit as PeftLinear4bit

    class FastLinear4bit(FastLora, PeftLinear4bit):  # type: ignore[misc]
        """LoRA around a 4-bit layer; anything but plain LoRA is left to PEFT."""

        def forward(
            self,
            x: Tensor,
            *args: object,
            again: Callable[[], Tensor] | None = None,
            **kwargs: object,
        ) -> Tensor:
            if args or kwargs or not _is_plain(self):
                result: Tensor = super().forward(x, *args, **kwargs)
                return result
            return _add_updates(self, self.base_layer(x), x, again)

    return {Linear4bit: FastLinear4bit}


def _is_plain(layer: LoraLayer) -> bool:
    is_variant = bool(layer.lora_variant) or any(layer.lora_bias.values())
    return not (layer.disable_adapters or layer.merged or is_variant)


def _add_updates(
    layer: LoraLayer, out: Tensor, x: Tensor, again: Callable[[], Tensor] | None
) -> Tensor:
    for name in layer.active_adapters:
        if name in layer.lora_A:
            kept = layer.lora_dropout[name](x)
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            assert isinstance(a, Tensor)
            assert isinstance(b, Tensor)
            makes_it = again if kept is x else None
            out = add_low_rank(out, kept, a, b, layer.scaling[name], makes_it)
    return out


class _AddLowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        out: Tensor,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        scaling: float,
        again: Callable[[], Tensor] | None,
    ) -> Tensor:
        rows, narrow_a, narrow_b = _narrow(out, x, a, b, scaling)
        with _full_precision(out.device):
            inner = rows @ narrow_a.T
            total = torch.addmm(out.reshape(-1, out.shape[-1]), inner, narrow_b.T)
        kept = (inner, narrow_a, narrow_b)
        ctx.save_for_backward(*(kept if again else (*kept, rows)))
        ctx.again = again  # type: ignore[attr-defined]
        ctx.scaling, ctx.x_shape, ctx.x_dtype = scaling, x.shape, x.dtype  # type: ignore[attr-defined]
        ctx.dtypes = a.dtype, b.dtype  # type: ignore[attr-defined]
        return total.view(out.shape)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None, None]:
        inner, narrow_a, narrow_b, *kept = ctx.saved_tensors  # type: ignore[attr-defined]
        x = kept[0] if kept else ctx.again()  # type: ignore[attr-defined]
        rows = x.reshape(-1, x.shape[-1]).to(narrow_a.dtype)
        a_dtype, b_dtype = ctx.dtypes  # type: ignore[attr-defined]
        flat = grad.reshape(-1, grad.shape[-1])
        with _full_precision(grad.device):
            back = flat @ narrow_b
            grad_a = (back.T @ rows).to(a_dtype)
            grad_b = (flat.T @ inner).to(b_dtype).mul_(ctx.scaling)  # type: ignore[attr-defined]
            grad_x = None
            if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
                grad_x = (back @ narrow_a).view(ctx.x_shape).to(ctx.x_dtype)  # type: ignore[attr-defined]
        return grad, grad_x, grad_a, grad_b, None, None
