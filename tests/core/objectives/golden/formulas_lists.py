"""Listwise, tree and token objectives, from their papers with mpmath."""

from formulas_companions import divergence, log_softmax
from formulas_pairs import both, ls, num
from generate import mean
from mpmath import exp, log, mpf


def positions(values):
    """Return the index of every value from the largest to the smallest, ties by position."""
    return sorted(range(len(values)), key=lambda index: (-values[index], index))


def lipo_list(s, psi, variant):
    order = positions(s)
    rank = [order.index(index) + 1 for index in range(len(s))]
    upper = [(i, j) for i in range(len(s)) for j in range(len(s)) if psi[i] > psi[j]]
    weight = {
        (i, j): abs(mpf(2) ** psi[i] - mpf(2) ** psi[j])
        * abs(1 / log(1 + rank[i]) - 1 / log(1 + rank[j]))
        for i, j in upper
    }
    if variant == "lambda":
        return sum(weight[pair] * -ls(s[pair[0]] - s[pair[1]]) for pair in upper)
    if variant == "lambda_rax":
        terms = [weight[pair] * log(2) * -ls(s[pair[0]] - s[pair[1]]) for pair in upper]
        return len(s) * mean(terms)
    if variant == "pair_logistic":
        return sum(-ls(s[i] - s[j]) for i, j in upper)
    if variant == "pair_hinge":
        return sum(max(mpf(0), 1 - (s[i] - s[j])) for i, j in upper)
    if variant == "list_mle":
        best = positions(psi)
        tails = [[s[j] for j in best[k:]] for k in range(len(best))]
        return sum(log(sum(exp(v) for v in tail)) - tail[0] for tail in tails)
    if variant == "point_mse":
        return sum((a - b) ** 2 for a, b in both(psi, s))
    if variant == "point_sigmoid":
        return sum(-p * ls(v) - (1 - p) * ls(-v) for p, v in both(psi, s))
    return sum(-p / sum(psi) * v for p, v in both(psi, log_softmax(s)))


def lipo(x, _, h):
    beta = num(h, "beta")
    losses = []
    for policy, reference, psi in zip(x["policy_logps"], x["ref_logps"], x["labels"], strict=True):
        s = [beta * (p - r) for p, r in both(policy, reference)]
        losses.append(lipo_list(s, psi, h["variant"]))
    return {"losses": losses}


def pro(x, _, h):
    losses, ranks = [], []
    for logps, lens, rewards in zip(x["policy_logps"], x["lens"], x["rewards"], strict=True):
        order = positions(rewards)
        s = [logps[k] / lens[k] for k in order]
        r = [rewards[k] for k in order]
        rank = mpf(0)
        for k in range(len(r) - 1):
            gaps = [r[k] - r[i] for i in range(k + 1, len(r))]
            own = s[k] * max(gaps)
            others = [s[k + 1 + i] * gap for i, gap in enumerate(gaps)]
            rank += log(num(h, "eps") + exp(own) + sum(exp(v) for v in others)) - own
        ranks.append(rank)
        sft = -logps[order[0]]
        losses.append(rank + num(h, "sft_weight") * (len(r) - 1) ** 2 * sft)
    return {"loss": mean(losses), "extras": {"rank_losses": ranks}}


def tree_tpo(x, _, h):
    beta = num(h, "beta")
    losses, scores, ranks = [], [], []
    for policy, reference, weights, v in zip(
        x["policy_step_logps"], x["ref_step_logps"], x["step_weights"], x["labels"], strict=True
    ):
        z = []
        for p, r, a in zip(policy, reference, weights, strict=True):
            total = sum(k * (m - n) for k, m, n in zip(a, p, r, strict=True))
            z.append(total / sum(a) if h["normalize_steps"] else total)
        scores.append(z)
        if h["variant"] == "intended":
            losses.append(lipo_list([beta * each for each in z], v, "lambda"))
            ranks.append(losses[-1])
            continue
        sign = {True: 1, False: -1}
        rank = mpf(0)
        for i in range(len(z)):
            for j in range(len(z)):
                direction = 0 if v[i] == v[j] else sign[v[i] > v[j]]
                rank += -ls((z[i] - z[j]) * direction)
        rank /= len(z) * (len(z) - 1)
        ranks.append(rank)
        losses.append(-ls(beta * rank))
    return {"losses": losses, "extras": {"rank_loss": mean(ranks), "scores": scores}}


def token_sums(x, masks):
    """Return masked log-ratio and masked divergence of each pair and side."""
    sums = {}
    for side in ("chosen", "rejected"):
        labels, scored = x[f"{side}_labels"], x[f"{side}_mask"]
        policy, reference = x[f"policy_{side}_logits"], x[f"ref_{side}_logits"]
        ratio, kl = [], []
        for i, row in enumerate(scored):
            u, k = mpf(0), mpf(0)
            for t, is_scored in enumerate(row):
                if is_scored:
                    y = labels[i][t]
                    gap = log_softmax(policy[i][t])[y] - log_softmax(reference[i][t])[y]
                    u += masks[side, "u"][i][t] * gap
                    k += masks[side, "d"][i][t] * divergence(reference[i][t], policy[i][t])
            ratio.append(u)
            kl.append(k)
        sums[side] = (ratio, kl)
    return sums


def ones(x):
    return {
        (side, use): [[1 for _ in row] for row in x[f"{side}_mask"]]
        for side in ("chosen", "rejected")
        for use in ("u", "d")
    }


def tdpo(x, frozen, h):
    sums, still = token_sums(x, ones(x)), token_sums(frozen, ones(x))
    beta = num(h, "beta")
    losses = []
    for u_w, u_l, k_w, k_l, still_w in zip(
        sums["chosen"][0],
        sums["rejected"][0],
        sums["chosen"][1],
        sums["rejected"][1],
        still["chosen"][1],
        strict=True,
    ):
        gap = k_l - k_w if h["variant"] == "tdpo1" else num(h, "alpha") * (k_l - still_w)
        losses.append(-ls(beta * (u_w - u_l - gap)))
    extras = {"seq_kl_chosen": sums["chosen"][1], "seq_kl_rejected": sums["rejected"][1]}
    return {"losses": losses, "extras": extras}


def sparsepo(x, _, h):
    masks = {
        (side, use): x[f"{side}_mask_{use}"] for side in ("chosen", "rejected") for use in "ud"
    }
    sums = token_sums(x, masks)
    losses = []
    for i in range(len(x["chosen_mask"])):
        u, k = (sums["chosen"][part][i] - sums["rejected"][part][i] for part in (0, 1))
        penalty = mpf(0)
        for (side, use), mask in masks.items():
            on = both(mask[i], x[f"{side}_mask"][i])
            penalty += num(h, f"l1_{use}") * sum(abs(m) for m, scored in on if scored)
        losses.append(-ls(num(h, "beta") * (u + k)) + penalty)
    return {"losses": losses}


def oreo(x, frozen, h):
    beta = num(h, "beta")
    alpha = num(h, "alpha") if "alpha" in h else mpf(0)
    value_losses, policy_losses, divergence = [], [], []
    for i, row in enumerate(x["mask"]):
        spots = [t for t, scored in enumerate(row) if scored]

        def ratio(source, t, i=i):
            return source["policy_logps"][i][t] - source["ref_logps"][i][t]

        value, policy = [], []
        for t in spots:
            suffix = sum((ratio(frozen, s) for s in spots if s >= t), mpf(0))
            later = sum((ratio(frozen, s) for s in spots if s > t), mpf(0))
            goal = x["reward"][i]
            value.append((beta * suffix + x["values"][i][t] - goal) ** 2)
            step = beta * (later + ratio(x, t)) + frozen["values"][i][t] - goal
            policy.append(step**2)
        value_losses.append(mean(value))
        policy_losses.append(mean(policy))
        divergence.append(mean([x["reverse_kl"][i][t] for t in spots]) if alpha else mpf(0))
    extras = {"value_losses": value_losses, "policy_losses": policy_losses}
    parts = zip(value_losses, policy_losses, divergence, strict=True)
    return {"losses": [a + b + alpha * c for a, b, c in parts], "extras": extras}
