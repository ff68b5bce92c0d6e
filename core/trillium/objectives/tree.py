"""Preferences over whole trees of steps: several paths, each a sequence of weighted steps."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from trillium.objectives.batch import ListSteps
from trillium.objectives.listwise import pairwise_losses, per_list, same_list


def tree_tpo(
    policy: ListSteps,
    reference: ListSteps,
    *,
    label: Float[Tensor, " response"],
    step_weight: Float[Tensor, "response step"],
    variant: Literal["intended", "official"] = "intended",
    beta: float = 0.5,
    normalize_steps: bool = False,
) -> Float[Tensor, " list"]:
    """Score each tree with tree preference optimisation (arXiv 2410.12854).

        z        = sum over steps of a * u        (divided by sum of a with normalize_steps)
        intended:  loss = LiPO-lambda of s = beta * z and the labels of the paths
        official:  loss = -ls(beta * mean over i, j of -ls((z_i - z_j) sign(v_i - v_j)))

    u is the log-ratio of a step, a = step_weight = 1 + cosine similarity to the best path's step.
    `official` is the released code, whose sign is inverted: it decreases as the ranking gets worse.
    It is here to reproduce, not to train with. Reading: `intended` is what the paper describes.
    """
    z = tree_scores(policy, reference, step_weight, normalize_steps=normalize_steps)
    if variant == "intended":
        return pairwise_losses(beta * z, label, policy.group, policy.n_lists, "lambda")
    return -logsigmoid(beta * official_ranking(z, label, policy))


def tree_scores(
    policy: ListSteps,
    reference: ListSteps,
    step_weight: Float[Tensor, "response step"],
    *,
    normalize_steps: bool,
) -> Float[Tensor, " response"]:
    """Return the weighted log-ratio of each path."""
    total = (step_weight * (policy.logps - reference.logps)).sum(-1)
    return total / step_weight.sum(-1) if normalize_steps else total


def official_ranking(
    z: Float[Tensor, " response"], label: Float[Tensor, " response"], policy: ListSteps
) -> Float[Tensor, " list"]:
    """Return the released ranking loss: every ordered pair, the diagonal and ties at log 2 each."""
    row, column = same_list(policy.group).nonzero(as_tuple=True)
    sign = (label[row] - label[column]).sign()
    losses = -logsigmoid((z[row] - z[column]) * sign)
    # A list of one has no pair to be divided by; what it costs is a constant.
    size = per_list(z.new_ones(len(z)), policy.group, policy.n_lists).clamp(min=2)
    return per_list(losses, policy.group[row], policy.n_lists) / (size * (size - 1))
