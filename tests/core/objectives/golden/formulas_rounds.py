"""What iterative recipes compute, and objectives on embeddings, with mpmath."""

from formulas_companions import log_softmax
from formulas_pairs import both, ls, margins, num
from generate import mean
from mpmath import exp, mpf, sqrt


def rso(x, _, h):
    rewards, beta = x["rewards"], num(h, "beta")

    def accept(candidates):
        best = max(rewards[k] for k in candidates)
        return {k: exp((rewards[k] - best) / beta) for k in candidates}

    extras = {"accept_prob_round1": list(accept(range(len(rewards))).values())}
    if "uniforms" in x:
        left, kept, draws = list(range(len(rewards))), [], iter(x["uniforms"])
        while len(kept) < h["num_samples"]:
            probability = accept(left)
            for k in list(left):
                if next(draws) < probability[k]:
                    kept.append(k)
                    left.remove(k)
                    if len(kept) == h["num_samples"]:
                        break
        extras["accepted"] = kept
    return {"extras": extras}


def curry_dpo(x, _, h):
    ratings = x["ratings"]
    best = max(range(len(ratings)), key=lambda k: (ratings[k], -k))
    rows = [(ratings[best] - r, k) for k, r in enumerate(ratings) if r < ratings[best]]
    direction = -1 if h["order"] == "easy_to_hard" else 1
    rows.sort(key=lambda row: direction * row[0])
    return {
        "pairs_chosen_rejected": [[best, k] for _, k in rows],
        "gaps": [gap for gap, _ in rows],
    }


def apo_accelerated(x, _, h):
    alpha = num(h, "alpha")

    def ahead(now, before):
        return [(1 + alpha) * a - alpha * b for a, b in both(now, before)]

    rows = both(x["log_pi_hat_t"], x["log_pi_hat_tm1"])
    return {
        "extras": {
            "log_pi_next": [log_softmax(ahead(now, before)) for now, before in rows],
            "theta_next": ahead(x["theta_hat_t"], x["theta_hat_tm1"]),
        }
    }


def hypo(x, frozen, h):
    offline = mean([-ls(num(h, "beta") * d) for d in margins(x, h)])
    terms = []
    for i, row in enumerate(x["policy_sample_logps"]):
        k = [p - r for p, r in both(frozen["policy_sample_logps"][i], x["ref_sample_logps"][i])]
        for j, logp in enumerate(row):
            rest = k[:j] + k[j + 1 :]
            baseline = mean(rest) if h["rloo"] else 0
            terms.append((k[j] - baseline) * logp)
    return {"loss": offline + num(h, "lam") * mean(terms)}


def clip(value, low, high):
    return min(max(value, low), high)


def p3o(x, frozen, h):
    eps = num(h, "eps")
    losses = []
    for i in range(len(x["rewards_1"])):
        now, still, old = (
            [source[f"{kind}_logps_{k}"][i] for k in (1, 2)]
            for source, kind in ((x, "policy"), (frozen, "policy"), (x, "old"))
        )
        advantage = x["rewards_1"][i] - x["rewards_2"][i]
        q, q_still = ([exp(a - b) for a, b in both(each, old)] for each in (now, still))
        if h["variant"] == "v1":
            c, c_still = ([clip(v, 1 - eps, 1 + eps) for v in each] for each in (q, q_still))
            first = min(advantage * q_still[1] * q[0], advantage * c_still[1] * c[0])
            second = min(-advantage * q_still[0] * q[1], -advantage * c_still[0] * c[1])
            losses.append(-(first + second) / 2)
            continue
        gap, old_gap, delta = now[0] - now[1], old[0] - old[1], num(h, "delta")
        weight = q_still[0] * q_still[1]
        clipped = clip(weight, 1 - eps, 1 + eps) * clip(gap, old_gap - delta, old_gap + delta)
        losses.append(-min(advantage * weight * gap, advantage * clipped) / 2)
    return {"losses": losses}


def rto(x, _, h):
    beta1, bound, kl = num(h, "beta1"), num(h, "clip"), num(h, "kl_coef")
    gamma, lam = num(h, "gamma"), num(h, "lam")
    rewards, advantages, returns = [], [], []
    for i, row in enumerate(x["mask"]):
        spots = [t for t, scored in enumerate(row) if scored]
        r, a, g = ([mpf(0)] * len(row) for _ in range(3))
        for t in spots:
            dense = beta1 * (x["dpo_logps"][i][t] - x["ref_logps"][i][t])
            dense = clip(dense, -bound, bound) if bound > 0 else dense
            r[t] = dense - kl * (x["policy_logps"][i][t] - x["ref_logps"][i][t])
        r[spots[-1]] += clip(x["reward"][i], mpf(-10), mpf(10))
        values = x["values"][i]
        for k, t in enumerate(spots):
            # The definition: a discounted sum of the temporal differences that follow.
            for step, s in enumerate(spots[k:]):
                after = spots[k + step + 1] if k + step + 1 < len(spots) else None
                following = values[after] if after is not None else mpf(0)
                a[t] += (gamma * lam) ** step * (r[s] + gamma * following - values[s])
            g[t] = a[t] + values[t]
        for rows, each in ((rewards, r), (advantages, a), (returns, g)):
            rows.append(each)
    extras = {"token_rewards": rewards, "advantages": advantages, "returns": returns}
    return {"extras": extras}


def gpm(x, _, h):
    scores = []
    for v, u in both(x["v_chosen"], x["v_rejected"]):
        areas = [v[k] * u[k + 1] - v[k + 1] * u[k] for k in range(0, len(v), 2)]
        scales = [mpf(each) for each in h.get("scales") or [1] * len(areas)]
        scores.append(sum(c * area for c, area in both(scales, areas)))
    losses = [-ls(s / num(h, "tau")) for s in scores]
    return {"losses": losses, "extras": {"scores": scores}}


def length(v):
    return sqrt(sum(each**2 for each in v))


def oppo(x, _, h):
    eps = num(h, "pd_eps")

    def distance(v):
        return length([a - b + eps for a, b in both(x["z_star"], v)])

    rows = both(x["phi_preferred"], x["phi_other"])
    margin = num(h, "margin")
    triplet = mean([max(mpf(0), distance(p) - distance(o) + margin) for p, o in rows])
    norm = sum(
        mean([(length(v) - 1) ** 2 for v in x[key]]) for key in ("phi_preferred", "phi_other")
    )
    loss = x["recon"] + num(h, "pref_ratio") * triplet + num(h, "norm_ratio") * norm
    return {"loss": loss, "extras": {"triplet": triplet, "norm": norm}}
