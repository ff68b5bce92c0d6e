"""The inputs on which the first twelve objectives are computed."""

import formulas_pairs
from generate import Method

NEAR = {
    "policy_chosen_logps": [-8.5, -61.25, -3.125, -240.75],
    "policy_rejected_logps": [-9.75, -55.5, -21.0, -233.125],
    "ref_chosen_logps": [-9.0, -60.0, -5.5, -251.0],
    "ref_rejected_logps": [-9.25, -58.75, -19.5, -229.5],
}
FAR = {
    "policy_chosen_logps": [-100.0, -300.0, -10050.0, -50.0],
    "policy_rejected_logps": [-300.0, -100.0, -50.0, -10050.0],
    "ref_chosen_logps": [-200.0, -200.0, -5050.0, -5050.0],
    "ref_rejected_logps": [-200.0, -200.0, -5050.0, -5050.0],
}
LENS = {"chosen_lens": [7, 45, 3, 190], "rejected_lens": [9, 44, 16, 201]}
EVEN = {"chosen_lens": [1, 1, 2, 2], "rejected_lens": [1, 1, 2, 2]}
PROMPTS = {"policy_prompt_logps": [-30.5, -4.25, -75.0, -12.0], "prompt_lens": [20, 3, 61, 9]}
PROBABLE = {
    "policy_chosen_logps": [-1e-12, -0.25, -4.0, -700.0],
    "policy_rejected_logps": [-3.0, -1e-9, -40.0, -1.0],
    **EVEN,
}
UNPAIRED = {
    "policy_logps": [-14.5, -33.25, -8.0, -121.5, -60.0],
    "ref_logps": [-15.75, -30.0, -8.5, -124.0, -58.0],
    "labels": [True, False, False, True, False],
    "policy_kl_logps": [-41.0, -22.5, -61.25, -18.0, -70.0],
    "ref_kl_logps": [-43.0, -22.0, -64.5, -17.5, -72.25],
}
REFERENCE = ("policy_chosen_logps", "policy_rejected_logps")


def free(inputs, lens):
    return {**{key: inputs[key] for key in REFERENCE}, **lens}


METHODS = [
    Method(
        "dpo",
        "2305.18290",
        formulas_pairs.dpo,
        {
            "default": ({"beta": 0.1, "label_smoothing": 0.0}, NEAR),
            "smoothed": ({"beta": 0.35, "label_smoothing": 0.2}, NEAR),
            "reference_free": (
                {"beta": 0.05, "label_smoothing": 0.1, "reference_free": True},
                free(NEAR, {}),
            ),
            "far": ({"beta": 0.7, "label_smoothing": 0.1}, FAR),
        },
        REFERENCE,
    ),
    Method(
        "ipo",
        "2310.12036",
        formulas_pairs.ipo,
        {
            "tokens": ({"tau": 0.1, "normalize": "tokens"}, {**NEAR, **LENS}),
            "none": ({"tau": 0.25, "normalize": "none"}, NEAR),
            "far": ({"tau": 0.01, "normalize": "tokens"}, {**FAR, **LENS}),
        },
        REFERENCE,
    ),
    Method(
        "hinge",
        "2309.06657",
        formulas_pairs.hinge,
        {
            "normalized": ({"beta": 0.05, "normalize_by_ref": True}, NEAR),
            "plain": ({"beta": 0.3, "normalize_by_ref": False}, free(NEAR, {})),
            "far": ({"beta": 0.3, "normalize_by_ref": True}, FAR),
        },
        REFERENCE,
    ),
    Method(
        "rdpo",
        "2403.00409",
        formulas_pairs.rdpo,
        {
            "tenth": ({"beta": 0.1, "epsilon": 0.1}, NEAR),
            "nearly_half": ({"beta": 0.4, "epsilon": 0.45}, NEAR),
            "no_flips": ({"beta": 0.1, "epsilon": 0.0}, NEAR),
            "far": ({"beta": 0.7, "epsilon": 0.2}, FAR),
        },
        REFERENCE,
        note="a loss may be negative",
    ),
    Method(
        "fdpo",
        "2309.16240",
        formulas_pairs.fdpo,
        {
            "reverse_kl": ({"divergence": "reverse_kl", "beta": 0.1}, NEAR),
            "forward_kl": ({"divergence": "forward_kl", "beta": 0.1}, NEAR),
            "js": ({"divergence": "js", "beta": 0.6}, NEAR),
            "alpha0.2": ({"divergence": "alpha", "alpha": 0.2, "beta": 0.1}, NEAR),
            "alpha0.9": ({"divergence": "alpha", "alpha": 0.9, "beta": 0.1}, NEAR),
            "far_js": ({"divergence": "js", "beta": 1.0}, FAR),
        },
        REFERENCE,
    ),
    Method(
        "ln_dpo",
        "2407.15229",
        formulas_pairs.ln_dpo,
        {
            "default": ({"beta": 2.0}, {**NEAR, **LENS}),
            "strong": ({"beta": 10.0}, {**NEAR, **LENS}),
            "far": ({"beta": 1.0}, {**FAR, **EVEN}),
        },
        REFERENCE,
    ),
    Method(
        "rpo",
        "2405.16436",
        formulas_pairs.rpo,
        {
            "sum_beta": ({"beta": 0.01, "eta": 0.005, "sft": "sum_beta"}, NEAR),
            "mean": ({"beta": 0.5, "eta": 0.2, "sft": "mean"}, {**NEAR, **LENS}),
            "far": ({"beta": 0.5, "eta": 0.2, "sft": "mean"}, {**FAR, **LENS}),
        },
        REFERENCE,
    ),
    Method(
        "simpo",
        "2405.14734",
        formulas_pairs.simpo,
        {
            name: (
                {
                    "beta": beta,
                    "gamma_beta_ratio": ratio,
                    "label_smoothing": eps,
                    "loss_type": link,
                },
                free(inputs, lens),
            )
            for name, beta, ratio, eps, link, inputs, lens in (
                ("default", 2.0, 0.25, 0.0, "sigmoid", NEAR, LENS),
                ("smoothed", 2.5, 0.5, 0.15, "sigmoid", NEAR, LENS),
                ("hinge", 2.0, 0.3, 0.0, "hinge", NEAR, LENS),
                ("far", 10.0, 0.25, 0.0, "sigmoid", FAR, EVEN),
            )
        },
        REFERENCE,
    ),
    Method(
        "orpo",
        "2403.07691",
        formulas_pairs.orpo,
        {
            "sequence": ({"lam": 1.0, "nll": "sequence"}, {**free(NEAR, LENS), **PROMPTS}),
            "default": ({"lam": 0.1}, free(NEAR, LENS)),
            "strong": ({"lam": 1.0}, free(NEAR, LENS)),
            "nearly_certain": ({"lam": 0.1}, PROBABLE),
            "batch": ({"lam": 0.1, "nll": "batch"}, free(NEAR, LENS)),
        },
        (*REFERENCE, "policy_prompt_logps"),
        note="batch and sequence: the mean of the losses has one mean over all tokens",
    ),
    Method(
        "cpo",
        "2401.08417",
        formulas_pairs.cpo,
        {
            "default": (
                {"beta": 0.1, "alpha": 1.0, "loss_type": "sigmoid"},
                free(NEAR, LENS),
            ),
            "hinge": ({"beta": 0.2, "alpha": 0.5, "loss_type": "hinge"}, free(NEAR, LENS)),
            "far": ({"beta": 1.0, "alpha": 1.0, "loss_type": "sigmoid"}, free(FAR, LENS)),
        },
        REFERENCE,
        grads_of="loss",
        note="the likelihood is one mean over all chosen tokens, so only the mean loss is defined",
    ),
    Method(
        "asft",
        "2409.10571",
        formulas_pairs.asft,
        {
            "default": ({"lam": 0.1, "beta": 1.0}, free(NEAR, LENS)),
            "tempered": ({"lam": 1.0, "beta": 0.1}, free(NEAR, LENS)),
            "nearly_certain": ({"lam": 1.0, "beta": 1.0}, PROBABLE),
        },
        REFERENCE,
    ),
    Method(
        "kto",
        "2402.01306",
        formulas_pairs.kto,
        {
            "default": ({"beta": 0.1, "w_desirable": 1.0, "w_undesirable": 1.0}, UNPAIRED),
            "weighted": ({"beta": 0.5, "w_desirable": 1.0, "w_undesirable": 1.5}, UNPAIRED),
            "kl_below_zero": (
                {"beta": 0.1, "w_desirable": 1.33, "w_undesirable": 1.0},
                {**UNPAIRED, "ref_kl_logps": [-1.0, -1.0, -1.0, -1.0, -1.0]},
            ),
        },
        ("policy_logps", "policy_kl_logps"),
    ),
]
