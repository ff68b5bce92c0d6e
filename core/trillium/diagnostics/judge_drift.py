"""Findings about where training led: the 3D-properties, coverage and over-optimisation."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.diagnostics import drift
from trillium.diagnostics.findings import Finding, Rows, find, mean, pair_logps
from trillium.diagnostics.overoptimisation import distinct_n


def judge_3d(rows: Rows, unseen: Rows) -> list[Finding]:
    """Judge the 3D-properties of arXiv 2406.07327 on pairs that were trained on, and others."""
    policy, reference = pair_logps(rows, "policy"), pair_logps(rows, "reference")
    change = policy.against(reference).per_token()
    chosen, rejected = float(change.chosen.mean()), float(change.rejected.mean())
    steeper = drift.gradient_log_ratio(policy) - drift.gradient_log_ratio(reference)
    ratio = float(steeper.median())
    is_drastic = rejected < 0 and -rejected > 2 * abs(chosen)
    remedy = "use objective.name=flex_dpo with beta_pos=0.1 and beta_neg=0.08"
    others = math.nan
    if unseen:
        held = pair_logps(unseen, "policy").against(pair_logps(unseen, "reference")).per_token()
        others = float(torch.cat([held.chosen, held.rejected]).mean())
    paper = "arXiv 2406.07327"
    return [
        find(
            "drastic drop",
            "mean change of log pi(rejected) per token, in nats",
            rejected,
            "not below twice the change of chosen",
            f"{paper}; factor: ours",
            is_drastic,
            f"{remedy}, or sample both responses from the policy",
        ),
        find(
            "degradation",
            "median growth of log of the gradient ratio |d/d rejected| / |d/d chosen|",
            ratio,
            f"at most {math.log(1000):.1f}, a factor of 1000, or chosen did not fall",
            f"{paper}; factor: ours",
            ratio > math.log(1000) and chosen < 0,
            f"{remedy}: the loss now suppresses rejected more than it learns chosen",
        ),
        find(
            "dispersion",
            "mean change of log pi per token on held-out responses, in nats",
            others,
            "at least -0.1",
            f"{paper}; size: ours",
            others < -0.1,
            "give data.held_out to measure it"
            if not unseen
            else "lower train.learning_rate or raise objective.beta: unseen responses lose "
            "probability",
        ),
    ]


def judge_samples(
    samples: Sequence[Mapping[str, object]], rows: Rows, *, beta: float, n_vocab: int
) -> list[Finding]:
    """Judge coverage and over-optimisation by the policy's own samples."""
    return [*_judge_coverage(samples, rows, beta=beta), *_judge_collapse(samples, n_vocab=n_vocab)]


def _judge_coverage(
    samples: Sequence[Mapping[str, object]], rows: Rows, *, beta: float
) -> list[Finding]:
    lengths = torch.tensor([len(_ids(row["ids"])) for row in samples], dtype=torch.float64)
    reference = pair_logps(rows, "reference").per_token()
    data = torch.cat([reference.chosen, reference.rejected])
    cover = drift.coverage(
        _numbers(samples, "logp"), _numbers(samples, "reference_logp"), lengths, data
    )
    reach = drift.largest_optimal_logratio(beta)
    online = "add on-policy rounds (trillium code run, trillium math run) or raise objective.beta"
    paper = "arXiv 2406.01462"
    return [
        find(
            "coverage",
            "KL(policy || reference) on the policy's own samples, in nats",
            cover.kl,
            f"at most {reach:g}, reward range 1 over beta",
            f"{paper}; bound: arXiv 2305.18290, Eq. 4",
            cover.kl > reach,
            f"{online}: the policy left the reference further than the optimum does",
        ),
        find(
            "coverage",
            "99 % quantile of log policy/reference on own samples, in nats",
            cover.top,
            f"at most {reach:g}",
            f"{paper}; bound: arXiv 2305.18290, Eq. 4",
            cover.top > reach,
            f"{online}: some samples are far more likely than the data can vouch for",
        ),
        find(
            "coverage",
            "share of own samples less likely per token than 99 % of the data",
            cover.outside,
            "at most 0.25",
            f"{paper}; share: ours",
            cover.outside > 0.25,
            f"{online}: the data say nothing about what the policy now writes",
        ),
    ]


def _judge_collapse(samples: Sequence[Mapping[str, object]], *, n_vocab: int) -> list[Finding]:
    greedy = [_ids(row["greedy_ids"]) for row in samples]
    distinct = distinct_n(greedy, n_vocab=n_vocab)
    entropy, mass = mean(_numbers(samples, "entropy")), mean(_numbers(samples, "mass"))
    over = "arXiv 2410.11677"
    return [
        find(
            "over-optimisation",
            "entropy of the ten likeliest tokens of greedy replies, in bits",
            entropy,
            "at least 0.05",
            f"{over}; the sign is its course, the size is ours",
            entropy < 0.05,
            "set train.overoptimisation_steps with data.held_out to stop in time: the policy has "
            "collapsed to single tokens",
        ),
        find(
            "over-optimisation",
            "mass of the ten likeliest tokens of greedy replies",
            mass,
            "at least 0.8",
            f"{over}; the sign is its fall, the size is ours",
            mass < 0.8,
            "lower train.learning_rate: probability spreads over unlikely tokens",
        ),
        find(
            "over-optimisation",
            "expectation-adjusted distinct-n of greedy replies, n = 1 to 5",
            distinct,
            "at least 0.2",
            f"{over} and 2202.13587; size: ours",
            distinct < 0.2,
            "stop earlier or raise objective.beta: the replies repeat one another",
        ),
    ]


def _numbers(rows: Sequence[Mapping[str, object]], name: str) -> Float[Tensor, " row"]:
    return torch.tensor([row[name] for row in rows], dtype=torch.float64)


def _ids(value: object) -> list[int]:
    assert isinstance(value, list)
    return value
