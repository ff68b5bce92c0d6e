"""Findings about pairs: what the data promise before training, and what training made of them."""

import torch

from trillium.diagnostics import drift, ranking
from trillium.diagnostics.findings import Finding, Rows, column, find, mean, pair_logps

# Below this weight DPO's gradient of a pair is a fiftieth of what it was at the start.
_SPENT = 0.01


def judge_data(rows: Rows, *, beta: float, agreement: float) -> list[Finding]:
    """Judge a preference file by the model that training starts from."""
    reference = pair_logps(rows, "reference")
    accuracy = mean(ranking.is_ranked_right(reference))
    ideal = mean(ranking.is_ranked_right_ideally(reference, beta=beta, agreement=agreement))
    scores = column(rows, "ches")
    harmful = mean(scores > 0)
    hardest = float(torch.quantile(ranking.difficulty(reference), 0.9))
    reach = drift.largest_optimal_logratio(beta)
    return [
        find(
            "CHES",
            "share of pairs with CHES above 0",
            harmful,
            "at most 0.5",
            "sign: arXiv 2410.08847, Section 5; share: ours",
            harmful > 0.5,
            "train on the pairs with the lowest scores: --filter-ches 0.05 kept.jsonl, as in "
            "Section 6 of the paper",
        ),
        find(
            "ranking accuracy",
            "of the reference, the model that training starts from",
            accuracy,
            "at least 0.5",
            "chance",
            accuracy < 0.5,
            "warm up on the chosen responses first: the model prefers the rejected ones",
        ),
        find(
            "idealised ranking accuracy",
            f"of DPO's optimum at beta {beta:g} and agreement {agreement:g}",
            ideal,
            "at least 0.95",
            "arXiv 2405.19534, Table 1 has 0.97 to 0.99",
            ideal < 0.95,
            "lower objective.beta: even the optimum would rank many pairs wrong",
        ),
        find(
            "difficulty",
            "90 % quantile of log ref(rejected)/ref(chosen), in nats",
            hardest,
            f"at most {reach:g}, reward range 1 over beta",
            "arXiv 2305.18290, Eq. 4, and 2405.19534, Section 4",
            hardest > reach,
            "lower objective.beta, drop the hardest pairs or sample responses from the policy "
            "itself: these need a loss near 0 to flip",
        ),
    ]


def judge_training(rows: Rows, *, beta: float, agreement: float) -> list[Finding]:
    """Judge what training did to the pairs it learned from."""
    return [
        *_judge_displacement(rows),
        *_judge_ranking(rows, beta=beta, agreement=agreement),
        _judge_saturation(rows, beta=beta),
    ]


def _judge_displacement(rows: Rows) -> list[Finding]:
    policy, reference = pair_logps(rows, "policy"), pair_logps(rows, "reference")
    moved = drift.displacement(policy, reference)
    predicted = ranking.rank_correlation(
        column(rows, "ches_per_token"), policy.against(reference).chosen
    )
    return [
        find(
            "likelihood displacement",
            "mean change of log pi(chosen), in nats",
            moved.chosen,
            "at least 0",
            "arXiv 2410.08847, Section 3",
            moved.chosen < 0,
            "filter by CHES, add a likelihood term (objective.name=rpo) or lower "
            "train.learning_rate: chosen responses have become less likely",
        ),
        find(
            "likelihood displacement",
            "share of pairs whose two responses both fell",
            moved.both_fell,
            "at most 0.5",
            "ours",
            moved.both_fell > 0.5,
            "use objective.name=flex_dpo with beta_neg below beta_pos: probability leaves both "
            "responses for others",
        ),
        find(
            "CHES",
            "rank correlation of CHES per token with the change of log pi(chosen)",
            predicted,
            "below 0 where CHES predicts",
            "arXiv 2410.08847, Section 5",
            False,
            "trust --filter-ches on these data only if this is well below 0",
        ),
    ]


def _judge_ranking(rows: Rows, *, beta: float, agreement: float) -> list[Finding]:
    policy, reference = pair_logps(rows, "policy"), pair_logps(rows, "reference")
    accuracy = mean(ranking.is_ranked_right(policy))
    ideal = mean(ranking.is_ranked_right_ideally(reference, beta=beta, agreement=agreement))
    was_wrong = ~ranking.is_ranked_right(reference)
    flipped = mean(ranking.is_ranked_right(policy)[was_wrong])
    return [
        find(
            "ranking accuracy",
            "of the policy",
            accuracy,
            f"at least 0.6; its idealised limit is {ideal:.3f}",
            "arXiv 2405.19534: most tuned models stay below 0.6",
            accuracy < 0.6,
            "raise train.num_train_epochs or lower objective.beta: pairs are still ranked wrong",
        ),
        find(
            "ranking accuracy",
            "share of pairs the reference ranked wrong that are now right",
            flipped,
            "at least 0.1",
            "arXiv 2405.19534, Section 4: below 0.1 with DPO",
            flipped < 0.1,
            "lower objective.beta or drop the most difficult pairs: the loss falls without flipping"
            " them",
        ),
    ]


def _judge_saturation(rows: Rows, *, beta: float) -> Finding:
    policy, reference = pair_logps(rows, "policy"), pair_logps(rows, "reference")
    spent = mean(drift.pair_weight(policy, reference, beta=beta) < _SPENT)
    return find(
        "saturation",
        f"share of pairs with weight sigmoid(-beta margin) below {_SPENT:g}",
        spent,
        "at most 0.5",
        "weight: arXiv 2305.18290, Section 4; share: ours",
        spent > 0.5,
        "stop earlier (train.stop_margin) or raise objective.beta: most pairs have no gradient",
    )
