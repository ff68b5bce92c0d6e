"""Pairwise objectives that need no reference: the policy's own log-probabilities are compared.

Each function returns one loss per pair, not reduced. With w for chosen and l for rejected:
S = sum of token log-probabilities in nats, n = count of scored tokens, ls(z) = log sigmoid(z).
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.numerics import log1mexp, log_odds


def simpo(
    policy: PairLogps,
    *,
    beta: float = 2.0,
    gamma_beta_ratio: float = 0.25,
    label_smoothing: float = 0.0,
    loss_type: Literal["sigmoid", "hinge"] = "sigmoid",
) -> Float[Tensor, " pair"]:
    """Score each pair with SimPO, means and a target margin (arXiv 2405.14734, Eq. 6).

        z       = beta * (S_w/n_w - S_l/n_l - gamma_beta_ratio)
        sigmoid:  loss = -(1-eps) ls(z) - eps ls(-z)        eps = label_smoothing
        hinge:    loss = max(0, 1 - z)

    The paper's gamma is beta * gamma_beta_ratio. TRL 1.16 has it as `CPOConfig(loss_type="simpo",
    simpo_gamma=gamma, cpo_alpha=0)`; its cpo_alpha defaults to 1, which adds a likelihood term.
    """
    mean = policy.per_token()
    z = beta * (mean.chosen - mean.rejected - gamma_beta_ratio)
    if loss_type == "hinge":
        return relu(1 - z)
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


def orpo(
    policy: PairLogps,
    *,
    lam: float = 0.1,
    nll: Literal["response", "batch", "sequence"] = "response",
    tokens_per_pair: float | None = None,
    policy_prompt: PairLogps | None = None,
) -> Float[Tensor, " pair"]:
    """Score each pair with ORPO: likelihood plus the log-odds ratio (arXiv 2403.07691, Eq. 6-7).

        loss = NLL - lam * ls(log odds_w - log odds_l)        odds = p/(1-p), p = exp(S/n)
        response:  NLL = -S_w / n_w          sequence:  NLL = -(P_w + S_w) / tokens_per_pair
        batch:     NLL = -S_w / tokens_per_pair

    P is the sum over the prompt's tokens but the first, which nothing predicts; tokens_per_pair is
    the mean count of the tokens summed (normalised as in `cpo`; None means over these pairs). The
    odds are those of the response in every form.
    Differs from TRL 1.16 and the released code (xfactlab/orpo@0f0abfe src/orpo_trainer.py), which
    take `sequence`; under --disable_prompt_loss the code takes `batch`. Its lam is 1.
    """
    mean = policy.per_token()
    likelihood = mean.chosen
    if nll == "batch":
        likelihood = policy.chosen / _tokens_per_pair(policy, tokens_per_pair)
    elif nll == "sequence":
        whole = _with_prompt(policy, policy_prompt)
        likelihood = whole.chosen / _tokens_per_pair(whole, tokens_per_pair)
    log_odds_ratio = log_odds(mean.chosen) - log_odds(mean.rejected)
    return -likelihood - lam * logsigmoid(log_odds_ratio)


def cpo(
    policy: PairLogps,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    loss_type: Literal["sigmoid", "hinge"] = "sigmoid",
    tokens_per_pair: float | None = None,
) -> Float[Tensor, " pair"]:
    """Score each pair with CPO: unreferenced DPO plus likelihood (arXiv 2401.08417).

        z       = beta * (S_w - S_l)
        sigmoid:  loss = -ls(z) - alpha * S_w / tokens_per_pair
        hinge:    loss = max(0, 1 - z) - alpha * S_w / tokens_per_pair

    The likelihood term is a mean over all chosen tokens, so the mean of these losses over pairs is
    the published one. `tokens_per_pair` is the mean of n_w over the pairs the losses are averaged
    over; None means these pairs. Equal to the authors' code at ALMA@28997eb26 (later versions hold
    another method) and to TRL 1.16.
    """
    z = beta * (policy.chosen - policy.rejected)
    contrast = relu(1 - z) if loss_type == "hinge" else -logsigmoid(z)
    return contrast - alpha * policy.chosen / _tokens_per_pair(policy, tokens_per_pair)


def asft(policy: PairLogps, *, lam: float = 0.1, beta: float = 1.0) -> Float[Tensor, " pair"]:
    """Score each pair with ASFT: absolute odds of each response (arXiv 2409.10571).

        o    = log(p/(1-p))        p = exp(S/n)
        loss = -S_w/n_w + lam * (-ls(beta * o_w) - ls(-beta * o_l))

    At beta = 1, the paper's form, the bracket is -log p_w - log(1 - p_l) and is computed so. Other
    values temper the odds as arXiv 2502.01237 does.
    Reading: p is the geometric mean over tokens, as in ORPO, whose odds the paper takes over.
    """
    mean = policy.per_token()
    return -mean.chosen + lam * absolute_odds_loss(mean, beta=beta)


def absolute_odds_loss(mean: PairLogps, *, beta: float) -> Float[Tensor, " pair"]:
    """Return the bracket of ASFT from means per token; the branch at 1 is the same, and exact."""
    if beta == 1.0:
        return -mean.chosen - log1mexp(mean.rejected)
    chosen, rejected = log_odds(mean.chosen), log_odds(mean.rejected)
    return -logsigmoid(beta * chosen) - logsigmoid(-beta * rejected)


def _with_prompt(policy: PairLogps, prompt: PairLogps | None) -> PairLogps:
    """Return the log-probabilities, and where they are known the counts, of prompt and chosen."""
    if prompt is None:
        raise ShapeError(
            'orpo: nll is "sequence" and the prompts are not scored; pass policy_prompt, or choose '
            "another nll"
        )
    n_chosen = None
    if policy.n_chosen is not None and prompt.n_chosen is not None:
        n_chosen = policy.n_chosen + prompt.n_chosen
    return replace(policy, chosen=policy.chosen + prompt.chosen, n_chosen=n_chosen)


def _tokens_per_pair(policy: PairLogps, given: float | None) -> float | Float[Tensor, ""]:
    if given is not None:
        return given
    if policy.n_chosen is None:
        raise ShapeError(
            "likelihood: the counts of chosen tokens are missing; pass n_chosen or tokens_per_pair"
        )
    return policy.n_chosen.to(torch.float64).mean().to(policy.chosen.dtype)
