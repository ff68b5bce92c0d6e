"""Pairwise objectives that carry numbers beside the pair: margins, win probabilities, two betas.

Log-probabilities are sums over scored tokens, in nats; one loss per pair, not reduced. With w for
chosen and l for rejected: u = policy - reference, ls(z) = log sigmoid(z).
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps


def flex_dpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta_pos: float = 0.1,
    beta_neg: float = 0.05,
    sft_coef: float = 0.0,
) -> Float[Tensor, " pair"]:
    """Score each pair with DPO that holds the two sides differently (arXiv 2406.07327).

        loss = -ls(beta_pos * u_w - beta_neg * u_l) - sft_coef * S_w          S_w = policy.chosen

    A smaller beta_neg slows the fall of both likelihoods; equal betas and sft_coef 0 are DPO.
    Reading: the weight and normalisation of the likelihood term are not given; we take the sum.
    """
    u = policy.against(reference)
    return -logsigmoid(beta_pos * u.chosen - beta_neg * u.rejected) - sft_coef * policy.chosen


def modpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    margin_chosen: Float[Tensor, "pair *objective"],
    margin_rejected: Float[Tensor, "pair *objective"],
    beta: float = 0.1,
    w: tuple[float, ...] = (0.5, 0.5),
    loss_type: Literal["sigmoid", "hinge"] = "sigmoid",
) -> Float[Tensor, " pair"]:
    """Score each pair with multi-objective DPO (arXiv 2310.03708).

        a       = (beta * u - sum_k w[k] * margin[k]) / w[0]        k = 1, 2, ... others
        sigmoid:  loss = -ls(a_w - a_l)          hinge:  loss = max(0, 1 - (a_w - a_l))

    w[0] weighs the objective that labelled these pairs. Margins are rewards of the other
    objectives, for example beta * log-ratio of a policy aligned with them. A small w[0]
    multiplies the gradient.
    """
    chosen, rejected = modpo_rewards(
        policy.against(reference), margin_chosen, margin_rejected, beta=beta, w=w
    )
    z = chosen - rejected
    return relu(1 - z) if loss_type == "hinge" else -logsigmoid(z)


def modpo_rewards(
    u: PairLogps,
    margin_chosen: Float[Tensor, "pair *objective"],
    margin_rejected: Float[Tensor, "pair *objective"],
    *,
    beta: float,
    w: tuple[float, ...],
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Return the `a` of MODPO for chosen and rejected responses."""
    others = u.chosen.new_tensor(w[1:])
    margins = [margin.reshape(len(margin), -1) for margin in (margin_chosen, margin_rejected)]
    if any(margin.shape[1] != len(others) for margin in margins):
        raise ShapeError(
            f"modpo: {margins[0].shape[1]} margins per response for {len(w)} weights (needs one"
            " less than weights); correct w, or add the missing margins"
        )
    chosen, rejected = (margin @ others for margin in margins)
    return (beta * u.chosen - chosen) / w[0], (beta * u.rejected - rejected) / w[0]


def sppo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    p_win_chosen: Float[Tensor, " pair"],
    p_win_rejected: Float[Tensor, " pair"],
    beta: float = 0.001,
    reduction: Literal["half", "sum"] = "half",
) -> Float[Tensor, " pair"]:
    """Score each pair with self-play preference optimisation (arXiv 2405.00675, Eq. 4.7).

        loss = 1/2 * ((u_w - (p_w - 1/2)/beta)^2 + (u_l - (p_l - 1/2)/beta)^2)

    p is the probability that the response beats a sample of the policy before the round. This is a
    regression, not a ranking: at beta 0.001 its targets are hundreds of nats, its losses about 1e5.
    Differs from TRL 1.16, whose `sppo_hard` is the sum without 1/2 at p = 1 and 0 (`sum`).
    """
    losses = _distance(
        policy.against(reference), (p_win_chosen - 0.5) / beta, (p_win_rejected - 0.5) / beta
    )
    return losses / 2 if reduction == "half" else losses


def gpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    score_chosen: Float[Tensor, " pair"],
    score_rejected: Float[Tensor, " pair"],
    beta: float = 0.001,
) -> Float[Tensor, " pair"]:
    """Score each pair with general preference optimisation (arXiv 2410.02197).

        loss = 1/2 * ((u_w - s_w/beta)^2 + (u_l - s_l/beta)^2)

    s is the mean preference score (`gpm_scores`) of the response over samples of the policy.
    Reading: SPPO's regression with the score in place of p - 1/2 and a log-partition of zero; the
    trainer that the paper describes is not in its released code.
    """
    u = policy.against(reference)
    return _distance(u, score_chosen / beta, score_rejected / beta) / 2


def _distance(
    u: PairLogps, chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """Return the squared distance of the two log-ratios from their targets."""
    return (u.chosen - chosen).square() + (u.rejected - rejected).square()
