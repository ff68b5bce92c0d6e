"""Functions of log-probabilities that stay exact where the textbook form does not.

Elementwise, differentiable, in the dtype of their input. Nothing here knows a batch.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def log1mexp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log(1 - exp(x)) for x <= 0, value and gradient exact on both ends.

    Near zero that is log(-expm1(x)), far from it log1p(-exp(x)); the branches meet at -log 2. Each
    branch sees only inputs it can differentiate, because the gradient of an unused branch is
    multiplied by zero and zero times infinity is NaN.

    A probability that rounded to exactly one (x = 0) is read as the largest number below, with zero
    gradient.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    is_near_zero = x > -math.log(2)
    near = torch.where(is_near_zero, x, -1.0)
    far = torch.where(is_near_zero, -1.0, x)
    return torch.where(is_near_zero, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))


def one_minus_exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return 1 - exp(x), with an exact value near zero and an exact gradient far below it.

    -expm1(x) has the value; but its gradient is computed from it, and 1 - (1 - exp(x)) cancels.
    """
    is_near_zero = x > -1
    near = torch.where(is_near_zero, x, 0.0)
    far = torch.where(is_near_zero, -1.0, x)
    return torch.where(is_near_zero, -torch.expm1(near), 1 - torch.exp(far))


def log_odds(log_p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log(p / (1 - p)) from log p."""
    return log_p - log1mexp(log_p)


def largest_exponent(dtype: torch.dtype) -> float:
    """Return where exponents are clamped so that exp, and differences of it, stay finite."""
    return 700.0 if dtype == torch.float64 else 80.0


def token_kl(
    from_logits: Float[Tensor, "*shape vocab"], to_logits: Float[Tensor, "*shape vocab"]
) -> Float[Tensor, "*shape"]:
    """Return D(p || q) at each position, p and q being the softmax of the two logits.

    A probability that underflows contributes zero, not NaN, because its logarithm stays finite.
    """
    p, q = from_logits.log_softmax(-1), to_logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
