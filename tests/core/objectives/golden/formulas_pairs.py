"""The first twelve objectives, written from their papers with mpmath."""

from generate import mean
from mpmath import exp, log, log1p, mpf


def ls(z):
    """Return log sigmoid(z)."""
    return -log1p(exp(-z)) if z > 0 else z - log1p(exp(z))


def sigmoid(z):
    return exp(ls(z))


def ratios(x):
    """Return the chosen and the rejected log-ratios."""
    pairs = zip(x["policy_chosen_logps"], x["ref_chosen_logps"], strict=True)
    others = zip(x["policy_rejected_logps"], x["ref_rejected_logps"], strict=True)
    return [p - r for p, r in pairs], [p - r for p, r in others]


def means(x):
    """Return the chosen and the rejected mean log-probabilities."""
    chosen = zip(x["policy_chosen_logps"], x["chosen_lens"], strict=True)
    rejected = zip(x["policy_rejected_logps"], x["rejected_lens"], strict=True)
    return [s / n for s, n in chosen], [s / n for s, n in rejected]


def margins(x, h):
    if h.get("reference_free") or h.get("normalize_by_ref") is False:
        return [w - r for w, r in both(x["policy_chosen_logps"], x["policy_rejected_logps"])]
    return [w - r for w, r in both(*ratios(x))]


def both(a, b):
    return list(zip(a, b, strict=True))


def num(h, key):
    return mpf(h[key])


def dpo(x, _, h):
    beta, eps = num(h, "beta"), num(h, "label_smoothing")
    z = [beta * d for d in margins(x, h)]
    return {"losses": [-(1 - eps) * ls(v) - eps * ls(-v) for v in z]}


def ipo(x, _, h):
    target = 1 / (2 * num(h, "tau"))
    w, r = ratios(x)
    if h["normalize"] == "tokens":
        w = [u / n for u, n in both(w, x["chosen_lens"])]
        r = [u / n for u, n in both(r, x["rejected_lens"])]
    return {"losses": [(a - b - target) ** 2 for a, b in both(w, r)]}


def hinge(x, _, h):
    return {"losses": [max(mpf(0), 1 - num(h, "beta") * d) for d in margins(x, h)]}


def rdpo(x, _, h):
    beta, eps = num(h, "beta"), num(h, "epsilon")
    clean = [-ls(beta * d) for d in margins(x, h)]
    flipped = [-ls(-beta * d) for d in margins(x, h)]
    return {"losses": [((1 - eps) * c - eps * f) / (1 - 2 * eps) for c, f in both(clean, flipped)]}


def fdpo(x, _, h):
    # f' of the generators: t log t, -log t, (t log t - (t+1) log((t+1)/2)), and the alpha family.
    derivative = {
        "reverse_kl": lambda u: u + 1,
        "forward_kl": lambda u: -exp(-u),
        "js": lambda u: log(2 * exp(u) / (1 + exp(u))),
        "alpha": lambda u: (1 - exp(-num(h, "alpha") * u)) / num(h, "alpha"),
    }[h["divergence"]]
    w, r = ratios(x)
    beta = num(h, "beta")
    return {"losses": [-ls(beta * (derivative(a) - derivative(b))) for a, b in both(w, r)]}


def ln_dpo(x, _, h):
    w, r = ratios(x)
    w = [u / n for u, n in both(w, x["chosen_lens"])]
    r = [u / n for u, n in both(r, x["rejected_lens"])]
    return {"losses": [-ls(num(h, "beta") * (a - b)) for a, b in both(w, r)]}


def rpo(x, _, h):
    beta, eta = num(h, "beta"), num(h, "eta")
    chosen = x["policy_chosen_logps"]
    sft = [beta * s for s in chosen] if h["sft"] == "sum_beta" else means(x)[0]
    return {"losses": [-ls(beta * d) - eta * s for d, s in both(margins(x, h), sft)]}


def simpo(x, _, h):
    beta, eps = num(h, "beta"), num(h, "label_smoothing")
    z = [beta * (a - b) - beta * num(h, "gamma_beta_ratio") for a, b in both(*means(x))]
    if h["loss_type"] == "hinge":
        return {"losses": [max(mpf(0), 1 - v) for v in z]}
    return {"losses": [-(1 - eps) * ls(v) - eps * ls(-v) for v in z]}


def log_odds(a):
    return log(exp(a) / (1 - exp(a)))


def orpo(x, _, h):
    w, r = means(x)
    ratio = [log_odds(a) - log_odds(b) for a, b in both(w, r)]
    form, n_pairs = h.get("nll", "response"), len(w)
    sums, counts = x["policy_chosen_logps"], x["chosen_lens"]
    if form == "sequence":
        sums = [a + b for a, b in both(sums, x["policy_prompt_logps"])]
        counts = [a + b for a, b in both(counts, x["prompt_lens"])]
    if form != "response":
        w = [s * n_pairs / sum(counts) for s in sums]
    losses = [-a - num(h, "lam") * ls(r) for a, r in both(w, ratio)]
    return {"losses": losses, "extras": {"log_odds": ratio}}


def cpo(x, _, h):
    beta = num(h, "beta")
    z = [beta * (w - r) for w, r in both(x["policy_chosen_logps"], x["policy_rejected_logps"])]
    contrast = [max(mpf(0), 1 - v) if h["loss_type"] == "hinge" else -ls(v) for v in z]
    nll = -sum(x["policy_chosen_logps"]) / sum(x["chosen_lens"])
    loss = mean(contrast) + num(h, "alpha") * nll
    return {"loss": loss, "extras": {"prefer_losses": contrast, "nll": nll}}


def asft(x, _, h):
    w, r = means(x)
    lam, beta = num(h, "lam"), num(h, "beta")
    return {
        "losses": [
            -a + lam * (-ls(beta * log_odds(a)) - ls(-beta * log_odds(b))) for a, b in both(w, r)
        ]
    }


def kto(x, frozen, h):
    rows = both(frozen["policy_kl_logps"], frozen["ref_kl_logps"])
    kl = max(mpf(0), mean([p - q for p, q in rows]))
    beta = num(h, "beta")
    losses = []
    for p, r, label in zip(x["policy_logps"], x["ref_logps"], x["labels"], strict=True):
        u = p - r
        if label:
            losses.append(num(h, "w_desirable") * (1 - sigmoid(beta * (u - kl))))
        else:
            losses.append(num(h, "w_undesirable") * (1 - sigmoid(beta * (kl - u))))
    return {"losses": losses, "extras": {"kl": kl}}
