"""Objectives with numbers or further sequences beside a pair, from their papers with mpmath."""

from formulas_pairs import both, ls, margins, means, num, ratios
from generate import mean
from mpmath import exp, log, mpf


def flex_dpo(x, _, h):
    w, r = ratios(x)
    a, b, c = num(h, "beta_pos"), num(h, "beta_neg"), num(h, "sft_coef")
    rows = zip(w, r, x["policy_chosen_logps"], strict=True)
    return {"losses": [-ls(a * u - b * v) - c * s for u, v, s in rows]}


def modpo(x, _, h):
    weights = [mpf(each) for each in h["w"]]
    rewards = []
    for ratio, margin in both(ratios(x), (x["margin_chosen"], x["margin_rejected"])):
        others = [sum(k * m for k, m in both(weights[1:], row)) for row in margin]
        rewards.append([(num(h, "beta") * u - o) / weights[0] for u, o in both(ratio, others)])
    z = [a - b for a, b in both(*rewards)]
    is_hinge = h["loss_type"] == "hinge"
    losses = [max(mpf(0), 1 - v) if is_hinge else -ls(v) for v in z]
    return {
        "losses": losses,
        "extras": {"chosen_rewards": rewards[0], "rejected_rewards": rewards[1]},
    }


def squares(x, h, chosen, rejected):
    w, r = ratios(x)
    beta = num(h, "beta")
    rows = zip(w, r, chosen, rejected, strict=True)
    return [(u - c / beta) ** 2 + (v - d / beta) ** 2 for u, v, c, d in rows]


def sppo(x, _, h):
    half = mpf(1) / 2
    chosen, rejected = ([p - half for p in x[f"p_win_{side}"]] for side in ("chosen", "rejected"))
    scale = half if h["reduction"] == "half" else 1
    return {"losses": [scale * value for value in squares(x, h, chosen, rejected)]}


def gpo(x, _, h):
    values = squares(x, h, x["score_chosen"], x["score_rejected"])
    return {"losses": [value / 2 for value in values]}


def dove(x, _, h):
    joint = {
        f"{model}_{side}_logps": [
            s + p for s, p in both(x[f"{model}_{side}_logps"], x[f"{model}_{side}_prompt_logps"])
        ]
        for model in ("policy", "ref")
        for side in ("chosen", "rejected")
    }
    return {"losses": [-ls(num(h, "beta") * d) for d in margins(joint, h)]}


def slic(x, _, h):
    rows = zip(
        x["policy_chosen_logps"],
        x["policy_rejected_logps"],
        x["policy_target_logps"],
        strict=True,
    )
    delta, lam = num(h, "delta"), num(h, "lam")
    return {"losses": [max(mpf(0), delta - w + r) - lam * t for w, r, t in rows]}


def tpo_triple(x, _, h):
    w, r = x["policy_chosen_logps"], x["policy_rejected_logps"]
    gamma = mpf(0)
    if h["variant"] == "tpo_l":
        w, r = means(x)
        gamma = num(h, "gamma")
    contrast = [-ls(num(h, "beta") * (a - b) - gamma) for a, b in both(w, r)]
    nll = -sum(x["policy_gold_logps"]) / sum(x["gold_lens"])
    extras = {"prefer_losses": contrast, "nll": nll}
    return {"loss": mean(contrast) + num(h, "alpha") * nll, "extras": extras}


def rationale_dpo(x, _, h):
    gamma = num(h, "gamma")
    second = [
        -ls(gamma * s) if h["form"] == "logsigmoid" else -gamma * s
        for s in x["policy_rationale_logps"]
    ]
    first = [-ls(num(h, "beta") * d) for d in margins(x, h)]
    return {"losses": [a + b for a, b in both(first, second)]}


def xpo(x, _, h):
    first = [-ls(num(h, "beta") * d) for d in margins(x, h)]
    bonus = [num(h, "alpha") * s for s in x["policy_logps_of_ref_sample"]]
    return {"losses": [a + b for a, b in both(first, bonus)]}


def srpo(x, _, h):
    beta, alpha, half = num(h, "beta"), num(h, "alpha"), mpf(1) / 2
    names = ("w", "l", "w_given_l", "l_given_l", "l_given_w", "w_given_w")
    improvement, generative = [], []
    for *ratio, p in zip(*(x[f"lr_{name}"] for name in names), x["p_win"], strict=True):
        w, r, w_l, l_l, l_w, w_w = ratio
        a = p - half - beta * (w_l - l_l)
        b = half - p - beta * (l_w - w_w)
        improvement.append((a**2 + b**2) / 2)
        generative.append((2 * p - 1 - beta * (w - r + w_l - l_w)) ** 2)
    losses = [(1 - alpha) * g + alpha * i for g, i in both(generative, improvement)]
    return {"losses": losses, "extras": {"improvement": improvement, "generative": generative}}


def log_softmax(row):
    normalizer = log(sum(exp(each) for each in row))
    return [each - normalizer for each in row]


def divergence(p, q):
    """Return D(p || q) from two rows of logits."""
    pairs = both(log_softmax(p), log_softmax(q))
    return sum(exp(a) * (a - b) for a, b in pairs)


def retention(x, h, stream):
    k, temp = num(h, "kd_lambda"), num(h, "temp")
    student, teacher = x[f"{stream}_student_logits"], x[f"{stream}_teacher_logits"]
    labels, mask = x[f"{stream}_labels"], x[f"{stream}_mask"]
    entropies, rows = [], []
    for i, row in enumerate(mask):
        row_kl = mpf(0)
        for t, is_scored in enumerate(row):
            if is_scored:
                entropies.append(-log_softmax(student[i][t])[labels[i][t]])
                tempered = [[v / temp for v in each[i][t]] for each in (teacher, student)]
                row_kl += divergence(*tempered)
        rows.append(row_kl)
    return (1 - k) * mean(entropies) + k * temp**2 * mean(rows)


def c3po(x, _, h):
    first = mean([-ls(num(h, "beta") * d) for d in margins(x, h)])
    hard, soft = retention(x, h, "hard"), retention(x, h, "soft")
    return {"loss": first + num(h, "sigma_hard") * hard + num(h, "sigma_soft") * soft}


def spo_degree(x, _, h):
    align = mean([-ls(num(h, "beta") * d) for d in margins(x, h)])
    rows = both(x["degree_logits"], x["degree_labels"])
    degree = mean([-log_softmax(row)[label] for row, label in rows])
    extras = {"align": align, "degree_ce": degree}
    return {"loss": align + num(h, "gamma") * degree, "extras": extras}


def ofs_dpo(x, frozen, h):
    beta, alpha = num(h, "beta"), num(h, "alpha")

    def dpo(model):
        named = {f"policy_{side}_logps": x[f"{model}_{side}_logps"] for side in SIDES}
        return [-ls(beta * d) for d in margins({**x, **named}, h)]

    def gap(source, model):
        return [w - r for w, r in both(*(source[f"{model}_{side}_logps"] for side in SIDES))]

    fast_chase = [-ls(beta * (a - b)) for a, b in both(gap(x, "fast"), gap(frozen, "slow"))]
    slow_chase = [-ls(beta * (a - b)) for a, b in both(gap(frozen, "fast"), gap(x, "slow"))]
    fast = [a + alpha * b for a, b in both(dpo("fast"), fast_chase)]
    slow = [a - alpha * b for a, b in both(dpo("slow"), slow_chase)]
    extras = {"fast_losses": fast, "slow_losses": slow}
    return {"losses": [a + b for a, b in both(fast, slow)], "extras": extras}


SIDES = ("chosen", "rejected")


def poft(x, _, h):
    losses = []
    for s, n, aligned in zip(x["policy_logps"], x["lens"], x["aligned_mean_logps"], strict=True):
        losses.append(-ls(num(h, "beta") * (s / n - mean(aligned)) + num(h, "gamma")))
    return {"losses": losses}


def meet(x, _, h):
    total = -sum(x["good_logps"]) - sum(x["bad_logps"])
    if h["reduction"] == "pooled":
        total /= sum(x["good_lens"]) + sum(x["bad_lens"])
    return {"loss": total}
