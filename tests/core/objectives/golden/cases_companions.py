"""The inputs of the objectives with numbers or further sequences beside a pair."""

import formulas_companions as formulas
from cases_pairs import FAR, LENS, NEAR, REFERENCE, free
from generate import Method, logits

NUMBERS = {
    "win": {"p_win_chosen": [0.9, 0.55, 1.0, 0.7], "p_win_rejected": [0.1, 0.5, 0.0, 0.35]},
    "score": {"score_chosen": [0.4, 0.05, 1.5, -0.2], "score_rejected": [-0.4, 0.0, -2.0, -0.6]},
    "margin": {
        "margin_chosen": [[0.5], [-0.75], [1.25], [0.0]],
        "margin_rejected": [[0.125], [1.0], [-1.5], [0.25]],
    },
    "margins": {
        "margin_chosen": [[0.5, -1.0], [-0.75, 0.5], [1.25, 2.0], [0.0, 0.0]],
        "margin_rejected": [[0.125, 0.25], [1.0, -0.5], [-1.5, 0.75], [0.25, 1.0]],
    },
}
PROMPTS = {
    "policy_chosen_prompt_logps": [-20.5, -33.0, -9.25, -61.0],
    "policy_rejected_prompt_logps": [-18.0, -35.5, -9.25, -58.75],
    "ref_chosen_prompt_logps": [-21.0, -32.0, -9.5, -60.5],
    "ref_rejected_prompt_logps": [-18.5, -34.0, -9.5, -61.25],
}
REVISIONS = {
    "lr_w": [0.75, -2.0, 0.125],
    "lr_l": [-0.5, 1.5, 0.25],
    "lr_w_given_l": [1.5, 0.5, -0.25],
    "lr_l_given_l": [0.25, -0.75, 1.0],
    "lr_l_given_w": [-1.25, 0.5, 0.0],
    "lr_w_given_w": [0.5, -0.25, 0.75],
    "p_win": [1.0, 0.75, 0.5],
}
STREAMS = {
    "soft_student_logits": logits(2, 3, 4, seed=1),
    "soft_teacher_logits": logits(2, 3, 4, seed=2),
    "soft_labels": [[3, 0, 1], [2, 2, 0]],
    "soft_mask": [[1, 1, 0], [1, 1, 1]],
    "hard_student_logits": logits(3, 2, 4, seed=3),
    "hard_teacher_logits": logits(3, 2, 4, seed=4),
    "hard_labels": [[1, 0], [2, 3], [0, 0]],
    "hard_mask": [[1, 1], [0, 1], [1, 0]],
}
TWO_ADAPTERS = {
    "fast_chosen_logps": NEAR["policy_chosen_logps"],
    "fast_rejected_logps": NEAR["policy_rejected_logps"],
    "slow_chosen_logps": [-8.75, -60.5, -4.0, -243.0],
    "slow_rejected_logps": [-9.5, -57.0, -20.25, -231.5],
    "ref_chosen_logps": NEAR["ref_chosen_logps"],
    "ref_rejected_logps": NEAR["ref_rejected_logps"],
}
GOLD = {"policy_gold_logps": [-6.5, -48.0, -2.25, -180.0], "gold_lens": [6, 41, 3, 170]}
RATIONALE = {"policy_rationale_logps": [-3.5, -21.0, -0.75, -44.0]}
SAMPLE = {"policy_logps_of_ref_sample": [-9.75, -61.25, -21.0, -240.75]}
TARGET = {"policy_target_logps": [-7.0, -61.25, -2.5, -210.0]}
DEGREES = {"degree_logits": logits(4, 3, seed=5), "degree_labels": [0, 2, 1, 1]}

METHODS = [
    Method(
        "flex_dpo",
        "2406.07327",
        formulas.flex_dpo,
        {
            "two_betas": ({"beta_pos": 0.1, "beta_neg": 0.03, "sft_coef": 0.0}, NEAR),
            "with_likelihood": ({"beta_pos": 0.2, "beta_neg": 0.2, "sft_coef": 0.01}, NEAR),
            "far": ({"beta_pos": 0.7, "beta_neg": 0.3, "sft_coef": 0.0}, FAR),
        },
        REFERENCE,
    ),
    Method(
        "modpo",
        "2310.03708",
        formulas.modpo,
        {
            "two": (
                {"beta": 0.1, "w": [0.6, 0.4], "loss_type": "sigmoid"},
                {**NEAR, **NUMBERS["margin"]},
            ),
            "three": (
                {"beta": 0.2, "w": [0.5, 0.125, 0.375], "loss_type": "sigmoid"},
                {**NEAR, **NUMBERS["margins"]},
            ),
            "hinge": (
                {"beta": 0.1, "w": [0.25, 0.75], "loss_type": "hinge"},
                {**NEAR, **NUMBERS["margin"]},
            ),
        },
        REFERENCE,
    ),
    Method(
        "sppo",
        "2405.00675",
        formulas.sppo,
        {
            "half": ({"beta": 0.001, "reduction": "half"}, {**NEAR, **NUMBERS["win"]}),
            "sum": ({"beta": 0.1, "reduction": "sum"}, {**NEAR, **NUMBERS["win"]}),
            "far": ({"beta": 0.001, "reduction": "half"}, {**FAR, **NUMBERS["win"]}),
        },
        REFERENCE,
    ),
    Method(
        "gpo",
        "2410.02197",
        formulas.gpo,
        {
            "default": ({"beta": 0.001}, {**NEAR, **NUMBERS["score"]}),
            "soft": ({"beta": 0.2}, {**NEAR, **NUMBERS["score"]}),
        },
        REFERENCE,
    ),
    Method(
        "dove",
        "2404.00530",
        formulas.dove,
        {"default": ({"beta": 0.1}, {**NEAR, **PROMPTS})},
        (*REFERENCE, "policy_chosen_prompt_logps", "policy_rejected_prompt_logps"),
    ),
    Method(
        "slic",
        "2305.10425",
        formulas.slic,
        {
            "default": ({"delta": 1.0, "lam": 0.1}, {**free(NEAR, {}), **TARGET}),
            "wide": ({"delta": 12.0, "lam": 0.5}, {**free(NEAR, {}), **TARGET}),
        },
        (*REFERENCE, "policy_target_logps"),
    ),
    Method(
        "tpo_triple",
        "2405.16681",
        formulas.tpo_triple,
        {
            "tpo": (
                {"variant": "tpo", "beta": 0.2, "alpha": 0.9},
                {**free(NEAR, LENS), **GOLD},
            ),
            "tpo_l": (
                {"variant": "tpo_l", "beta": 10.0, "alpha": 0.05, "gamma": 0.7},
                {**free(NEAR, LENS), **GOLD},
            ),
        },
        (*REFERENCE, "policy_gold_logps"),
        grads_of="loss",
        note="the likelihood is one mean over all gold tokens",
    ),
    Method(
        "rationale_dpo",
        "2407.14477",
        formulas.rationale_dpo,
        {
            "nll": ({"beta": 0.1, "gamma": 0.1, "form": "nll"}, {**NEAR, **RATIONALE}),
            "logsigmoid": (
                {"beta": 0.1, "gamma": 0.5, "form": "logsigmoid"},
                {**NEAR, **RATIONALE},
            ),
        },
        (*REFERENCE, "policy_rationale_logps"),
    ),
    Method(
        "xpo",
        "2405.21046",
        formulas.xpo,
        {
            "default": ({"beta": 0.1, "alpha": 1e-5}, {**NEAR, **SAMPLE}),
            "bold": ({"beta": 0.03, "alpha": 0.02}, {**NEAR, **SAMPLE}),
        },
        (*REFERENCE, "policy_logps_of_ref_sample"),
    ),
    Method(
        "srpo",
        "2406.01660",
        formulas.srpo,
        {
            "default": ({"beta": 0.1, "alpha": 0.5}, REVISIONS),
            "mostly_generative": ({"beta": 0.4, "alpha": 0.1}, REVISIONS),
        },
        tuple(name for name in REVISIONS if name != "p_win"),
        note="derived from the objective of the paper; its mixing constants may differ",
    ),
    Method(
        "c3po",
        "2402.10893",
        formulas.c3po,
        {
            "released": (
                {
                    "beta": 0.1,
                    "kd_lambda": 0.0,
                    "temp": 1.0,
                    "sigma_soft": 0.2,
                    "sigma_hard": 0.1,
                },
                {**NEAR, **STREAMS},
            ),
            "distilled": (
                {
                    "beta": 0.1,
                    "kd_lambda": 0.6,
                    "temp": 4.0,
                    "sigma_soft": 0.3,
                    "sigma_hard": 0.4,
                },
                {**NEAR, **STREAMS},
            ),
        },
        (*REFERENCE, "soft_student_logits", "hard_student_logits"),
        grads_of="loss",
    ),
    Method(
        "spo_degree",
        "2409.17791",
        formulas.spo_degree,
        {"default": ({"beta": 0.1, "gamma": 0.3}, {**NEAR, **DEGREES})},
        (*REFERENCE, "degree_logits"),
        grads_of="loss",
    ),
    Method(
        "ofs_dpo",
        "2406.05534",
        formulas.ofs_dpo,
        {
            "default": ({"beta": 0.1, "alpha": 0.1}, TWO_ADAPTERS),
            "strong": ({"beta": 0.4, "alpha": 0.6}, TWO_ADAPTERS),
        },
        tuple(name for name in TWO_ADAPTERS if not name.startswith("ref")),
    ),
    Method(
        "poft",
        "2412.12865",
        formulas.poft,
        {
            "one_model": (
                {"beta": 1.0, "gamma": 0.0},
                {
                    "policy_logps": [-12.5, -70.0, -3.0],
                    "lens": [9, 44, 4],
                    "aligned_mean_logps": [[-0.9], [-2.25], [-0.5]],
                },
            ),
            "two_models": (
                {"beta": 2.0, "gamma": 0.25},
                {
                    "policy_logps": [-12.5, -70.0],
                    "lens": [9, 44],
                    "aligned_mean_logps": [[-0.9, -1.1], [-2.25, -0.75]],
                },
            ),
        },
        ("policy_logps",),
    ),
    Method(
        "meet",
        "2310.00819",
        formulas.meet,
        {
            reduction: (
                {"reduction": reduction},
                {
                    "good_logps": [-11.0, -23.5, -4.25],
                    "good_lens": [12, 20, 5],
                    "bad_logps": [-17.0, -8.75],
                    "bad_lens": [10, 7],
                },
            )
            for reduction in ("pooled", "sum")
        },
        ("good_logps", "bad_logps"),
        grads_of="loss",
    ),
]
