"""Pairwise objectives that read further sequences beside the pair.

A companion is a prompt, a supervised target, a gold response, a rationale, a revision, a sample of
the reference, or a stream of completions to keep. One loss per pair, not reduced. With w for chosen
and l for rejected: S = sum of token log-probabilities in nats, u = policy - reference,
n = count of scored tokens, ls(z) = log sigmoid(z).
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps, SideStream, SingleLogps
from trillium.objectives.pairwise import dpo


def dove(
    policy: PairLogps,
    reference: PairLogps,
    *,
    policy_prompt: PairLogps,
    reference_prompt: PairLogps,
    beta: float = 0.1,
) -> Float[Tensor, " pair"]:
    """Score pairs of different prompts with DPO on prompt and response (arXiv 2404.00530).

        loss = -ls(beta * ((u_w + v_w) - (u_l + v_l)))          v = log-ratio of the prompt

    The first token of a prompt has no log-probability. With equal prompts this is DPO.
    """
    u, v = policy.against(reference), policy_prompt.against(reference_prompt)
    return -logsigmoid(beta * ((u.chosen + v.chosen) - (u.rejected + v.rejected)))


def slic(
    policy: PairLogps, *, target: Float[Tensor, " pair"], delta: float = 1.0, lam: float = 0.1
) -> Float[Tensor, " pair"]:
    """Score each pair with SLiC-HF: a calibration margin and likelihood (arXiv 2305.10425).

        loss = max(0, delta - S_w + S_l) - lam * target

    `target` is the policy's log-probability of the supervised target, which may be the chosen
    response. Reading: quoted from the RSO paper, Eq. 9, which drops the second term.
    """
    return relu(delta - policy.chosen + policy.rejected) - lam * target


def tpo_triple(
    policy: PairLogps,
    *,
    gold: SingleLogps,
    variant: Literal["tpo", "tpo_l"] = "tpo",
    beta: float = 0.2,
    alpha: float = 0.9,
    gamma: float = 0.5,
    tokens_per_gold: float | None = None,
) -> Float[Tensor, " pair"]:
    """Score each pair beside a gold response, which alone is imitated (arXiv 2405.16681).

        tpo:    loss = -ls(beta * (S_w - S_l)) - alpha * S_gold / tokens_per_gold
        tpo_l:  loss = -ls(beta * (S_w/n_w - S_l/n_l) - gamma) - alpha * S_gold / tokens_per_gold

    The likelihood is a mean over all gold tokens, as in CPO; None means the tokens of this batch.
    The defaults are those of the released code; tpo_l is used with a beta near 10.
    """
    if tokens_per_gold is None:
        if gold.lengths is None:
            raise ShapeError("tpo_triple: the counts of gold tokens are missing; pass gold.lengths")
        tokens_per_gold = gold.lengths.double().mean().item()
    contrast = triple_contrast(policy, variant=variant, beta=beta, gamma=gamma)
    return contrast - alpha * gold.logps / tokens_per_gold


def triple_contrast(
    policy: PairLogps, *, variant: Literal["tpo", "tpo_l"], beta: float, gamma: float
) -> Float[Tensor, " pair"]:
    """Return the first term of triple preference optimisation."""
    if variant == "tpo":
        return -logsigmoid(beta * (policy.chosen - policy.rejected))
    mean = policy.per_token()
    return -logsigmoid(beta * (mean.chosen - mean.rejected) - gamma)


def rationale_dpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    rationale: Float[Tensor, " pair"],
    beta: float = 0.1,
    gamma: float = 0.1,
    form: Literal["logsigmoid", "nll"] = "nll",
) -> Float[Tensor, " pair"]:
    """Score each pair with DPO plus likelihood of a rationale of the preference (arXiv 2407.14477).

        nll:         loss = -ls(beta * (u_w - u_l)) - gamma * S_rationale
        logsigmoid:  loss = -ls(beta * (u_w - u_l)) - ls(gamma * S_rationale)

    The paper describes `nll`; the released code computes `logsigmoid`, which is nearly the same
    because gamma * S_rationale is far below zero.
    """
    losses = dpo(policy, reference, beta=beta)
    if form == "nll":
        return losses - gamma * rationale
    return losses - logsigmoid(gamma * rationale)


def xpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    reference_sample: Float[Tensor, " pair"],
    beta: float = 0.1,
    alpha: float = 1e-5,
) -> Float[Tensor, " pair"]:
    """Score each pair with exploratory preference optimisation (arXiv 2405.21046).

        loss = -ls(beta * (u_w - u_l)) + alpha * S_reference_sample

    One response of the pair was sampled from the policy, the other from the reference;
    `reference_sample` is the policy's log-probability of the latter; pushing it down explores.
    """
    return dpo(policy, reference, beta=beta) + alpha * reference_sample


def srpo(
    direct: PairLogps,
    *,
    given_chosen: PairLogps,
    given_rejected: PairLogps,
    p_win: Float[Tensor, " pair"],
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Float[Tensor, " pair"]:
    """Score each pair with self-improving robust preference optimisation (arXiv 2406.01660).

        improvement = 1/2 * (p - 1/2 - beta * (r_w|l - r_l|l))^2
                    + 1/2 * (1/2 - p - beta * (r_l|w - r_w|w))^2
        generative  = (2p - 1 - beta * (r_w - r_l + r_w|l - r_l|w))^2
        loss        = (1 - alpha) * generative + alpha * improvement

    All inputs are log-ratios to the reference: `direct` of the response given the prompt,
    `given_chosen` and `given_rejected` of the response as a revision of the other one.
    Reading: derived from the published min-max objective, zero at its analytic optimum; the paper's
    mixing constants may differ.
    """
    improvement = srpo_improvement(given_chosen, given_rejected, p_win, beta=beta)
    generative = srpo_generative(direct, given_chosen, given_rejected, p_win, beta=beta)
    return (1 - alpha) * generative + alpha * improvement


def srpo_improvement(
    given_chosen: PairLogps,
    given_rejected: PairLogps,
    p_win: Float[Tensor, " pair"],
    *,
    beta: float,
) -> Float[Tensor, " pair"]:
    """Return how far the reviser is from preferring the better response as a revision."""
    from_rejected = p_win - 0.5 - beta * (given_rejected.chosen - given_rejected.rejected)
    from_chosen = 0.5 - p_win - beta * (given_chosen.rejected - given_chosen.chosen)
    return (from_rejected.square() + from_chosen.square()) / 2


def srpo_generative(
    direct: PairLogps,
    given_chosen: PairLogps,
    given_rejected: PairLogps,
    p_win: Float[Tensor, " pair"],
    *,
    beta: float,
) -> Float[Tensor, " pair"]:
    """Return how far the generator is from what its own reviser implies."""
    gap = direct.chosen - direct.rejected + given_rejected.chosen - given_chosen.rejected
    return (2 * p_win - 1 - beta * gap).square()


def c3po(
    policy: PairLogps,
    reference: PairLogps,
    *,
    near_scope: SideStream,
    out_of_scope: SideStream,
    tokens_per_near: float | None = None,
    tokens_per_out: float | None = None,
    beta: float = 0.1,
    kd_lambda: float = 0.0,
    temp: float = 1.0,
    sigma_soft: float = 0.2,
    sigma_hard: float = 0.1,
) -> Float[Tensor, " pair"]:
    """Score in-scope pairs with DPO while two other streams stay as they were (arXiv 2402.10893).

        Q    = (1 - kd_lambda) * CE(target) + kd_lambda * temp^2 * KL(teacher || policy at temp)
        loss = -ls(beta * (u_w - u_l)) + sigma_hard * Q(near_scope) + sigma_soft * Q(out_of_scope)

    CE is a mean over all scored tokens of a stream, KL a sum over those of a row and a mean over
    rows; both streams hold completions of the original model. Their sizes are their own, so Q is
    one number per stream, added to every pair. `tokens_per_near` and `tokens_per_out` are the mean
    counts of scored tokens over the optimizer batch; None means those of this batch. Defaults are
    the released configuration.
    The released code shifts its distillation mask by one against the logits; here they are aligned.
    """
    near, out = (
        retention(stream, kd_lambda=kd_lambda, temp=temp, tokens_per_row=n_tokens)
        for stream, n_tokens in ((near_scope, tokens_per_near), (out_of_scope, tokens_per_out))
    )
    return dpo(policy, reference, beta=beta) + sigma_hard * near + sigma_soft * out


def retention(
    stream: SideStream, *, kd_lambda: float, temp: float, tokens_per_row: float | None = None
) -> Float[Tensor, ""]:
    """Return the Q of C3PO for one stream."""
    if tokens_per_row is None:
        tokens_per_row = stream.lengths.double().mean().item()
    cross_entropy = -stream.logps.mean() / tokens_per_row
    if kd_lambda == 0:
        return cross_entropy
    if stream.kl is None:
        raise ShapeError(
            f"c3po: kd_lambda is {kd_lambda} and the divergences are missing; pass stream.kl"
        )
    return (1 - kd_lambda) * cross_entropy + kd_lambda * temp**2 * stream.kl.mean()
