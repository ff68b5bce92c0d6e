"""The inputs of the listwise, tree and token objectives."""

import formulas_lists as formulas
from generate import Method, logits

LISTS = {
    "policy_logps": [[-12.0, -9.5, -15.25, -11.0], [-40.0, -44.5, -39.0, -52.25]],
    "ref_logps": [[-11.0, -10.5, -15.0, -13.5], [-41.0, -42.0, -40.5, -50.0]],
    "labels": [[0.8, 0.3, 0.55, 0.3], [0.1, 0.95, 0.4, 0.6]],
}
SEPARATED = {
    "policy_logps": [[-50.0, -150.0, -250.0], [-10050.0, -50.0, -5050.0]],
    "ref_logps": [[-150.0, -150.0, -150.0], [-5050.0, -5050.0, -5050.0]],
    "labels": [[1.0, 0.5, 0.0], [0.0, 1.0, 0.25]],
}
VARIANTS = (
    "lambda",
    "lambda_rax",
    "pair_logistic",
    "pair_hinge",
    "list_mle",
    "point_mse",
    "point_sigmoid",
    "softmax",
)
RANKED = {
    "policy_logps": [[-9.0, -14.5, -8.25, -30.0], [-41.0, -20.5, -33.0, -38.75]],
    "lens": [[9, 10, 12, 20], [33, 21, 28, 40]],
    "rewards": [[1.25, 0.5, 2.0, -0.75], [0.8, 0.8, 0.1, -0.4]],
}
TREES = {
    "policy_step_logps": [
        [[-0.5, -1.5, -0.75], [-0.5, -2.5, -1.0], [-2.0, -0.25, -3.0], [-1.0, -1.0, -1.0]],
        [[-1.0, -0.5, -2.0], [-0.75, -1.25, -0.25], [-3.0, -0.5, -1.5], [-0.5, -0.25, -0.125]],
    ],
    "ref_step_logps": [
        [[-0.75, -1.75, -1.0], [-0.5, -2.0, -1.5], [-1.5, -0.5, -2.5], [-1.25, -1.0, -0.5]],
        [[-1.5, -0.25, -2.5], [-0.5, -1.5, -0.5], [-2.0, -0.75, -1.0], [-1.0, -0.5, -0.25]],
    ],
    "step_weights": [
        [[2.0, 1.75, 1.9], [2.0, 1.5, 0.5], [1.25, 0.75, 0.0], [1.0, 1.0, 1.0]],
        [[1.5, 2.0, 0.25], [2.0, 2.0, 2.0], [0.5, 1.5, 1.75], [1.0, 0.25, 0.5]],
    ],
    "labels": [[0.9, 0.2, -0.5, 0.2], [0.1, 1.0, 0.3, -0.2]],
}
LOGITS = {
    "policy_chosen_logits": logits(2, 3, 4, seed=11),
    "policy_rejected_logits": logits(2, 4, 4, seed=12),
    "ref_chosen_logits": logits(2, 3, 4, seed=13),
    "ref_rejected_logits": logits(2, 4, 4, seed=14),
    "chosen_labels": [[0, 3, 1], [2, 1, 0]],
    "rejected_labels": [[1, 1, 2, 0], [3, 0, 2, 2]],
    "chosen_mask": [[1, 1, 1], [1, 0, 1]],
    "rejected_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
}
MASKS = {
    "chosen_mask_u": [[0.25, 1.5, 0.0], [0.75, 0.5, 0.1]],
    "chosen_mask_d": [[0.5, 0.125, 1.0], [0.0, 0.5, 0.8]],
    "rejected_mask_u": [[1.0, 0.3, 0.7, 0.0], [0.2, 0.0, 0.9, 0.4]],
    "rejected_mask_d": [[0.1, 0.6, 0.0, 0.5], [0.35, 0.25, 0.0, 1.2]],
}
TRAJECTORIES = {
    "policy_logps": [[-0.5, -3.0, -0.25, -1.0], [-2.0, -0.1, -0.4, -0.3]],
    "ref_logps": [[-0.75, -2.5, -0.5, -1.5], [-1.5, -0.2, -0.6, -0.1]],
    "values": [[0.25, 0.5, 0.1, 0.75], [-0.25, 0.0, 0.3, 0.6]],
    "mask": [[1, 0, 1, 1], [1, 1, 1, 0]],
    "reward": [1.0, 0.0],
}
DIVERGENT = {
    **TRAJECTORIES,
    "reverse_kl": [[0.05, 9.0, 0.4, 0.0], [0.125, 0.25, 0.75, 9.0]],
}
POLICY_LOGITS = ("policy_chosen_logits", "policy_rejected_logits")

METHODS = [
    Method(
        "lipo",
        "2402.01878",
        formulas.lipo,
        {
            **{name: ({"beta": 0.05, "variant": name}, LISTS) for name in VARIANTS},
            "lambda_strong": ({"beta": 0.5, "variant": "lambda"}, LISTS),
            "lambda_far": ({"beta": 1.0, "variant": "lambda"}, SEPARATED),
            "list_mle_far": ({"beta": 1.0, "variant": "list_mle"}, SEPARATED),
        },
        ("policy_logps",),
    ),
    Method(
        "pro",
        "2306.17492",
        formulas.pro,
        {
            "exact": ({"sft_weight": 0.05, "eps": 0.0}, RANKED),
            "released": ({"sft_weight": 0.05, "eps": 1e-10}, RANKED),
        },
        ("policy_logps",),
        grads_of="loss",
        note="the second list has a tie, broken by position",
    ),
    Method(
        "tree_tpo",
        "2410.12854",
        formulas.tree_tpo,
        {
            "sums": ({"variant": "intended", "beta": 0.5, "normalize_steps": False}, TREES),
            "means": ({"variant": "intended", "beta": 2.0, "normalize_steps": True}, TREES),
            "official": ({"variant": "official", "beta": 0.5, "normalize_steps": True}, TREES),
        },
        ("policy_step_logps",),
        note="official is the released loss, whose sign is inverted",
    ),
    Method(
        "tdpo",
        "2404.11999",
        formulas.tdpo,
        {
            "tdpo1": ({"variant": "tdpo1", "beta": 0.5}, LOGITS),
            "tdpo2": ({"variant": "tdpo2", "beta": 0.5, "alpha": 0.7}, LOGITS),
        },
        POLICY_LOGITS,
    ),
    Method(
        "sparsepo",
        "2410.05102",
        formulas.sparsepo,
        {
            "plain": ({"beta": 0.8, "l1_u": 0.0, "l1_d": 0.0}, {**LOGITS, **MASKS}),
            "penalised": ({"beta": 0.2, "l1_u": 0.01, "l1_d": 0.003}, {**LOGITS, **MASKS}),
        },
        POLICY_LOGITS,
        note="gradients by the masks are left to the properties: |m| has none at zero",
    ),
    Method(
        "oreo",
        "2412.16145",
        formulas.oreo,
        {
            "regularised": ({"beta": 0.03, "alpha": 0.3}, DIVERGENT),
            "default": ({"beta": 0.03}, TRAJECTORIES),
            "strong": ({"beta": 1.5}, TRAJECTORIES),
        },
        ("policy_logps", "values", "reverse_kl"),
        note="the first trajectory has a token that is not scored in its middle",
    ),
]
