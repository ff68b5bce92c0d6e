"""The inputs of what iterative recipes compute, and of the objectives on embeddings."""

import formulas_rounds as formulas
from cases_pairs import NEAR, REFERENCE
from generate import Method, logits

CANDIDATES = {"rewards": [0.5, -0.25, 1.75, 1.5, 0.0]}
UNIFORMS = {
    "uniforms": [0.04, 0.6, 0.999, 0.7, 0.2, 0.3, 0.01, 0.8, 0.5, 0.15, 0.9, 0.35, 0.05, 0.02]
}
SAMPLES = {
    "policy_logps_1": [-30.0, -12.5, -44.25, -8.0],
    "policy_logps_2": [-28.5, -15.0, -40.0, -9.125],
    "old_logps_1": [-30.125, -12.0, -44.0, -8.0],
    "old_logps_2": [-28.25, -15.125, -40.5, -9.125],
    "rewards_1": [0.75, -1.0, 2.0, 0.5],
    "rewards_2": [-0.25, 0.5, 2.5, -0.5],
}
TRAJECTORIES = {
    "dpo_logps": [[-0.5, -2.0, -0.25, -4.0], [-1.5, -0.75, -3.0, -0.5]],
    "policy_logps": [[-0.75, -1.5, -0.5, -1.0], [-1.25, -1.0, -0.5, -0.75]],
    "ref_logps": [[-1.0, -1.75, -0.5, -1.25], [-2.0, -0.5, -1.0, -0.25]],
    "mask": [[1, 1, 1, 0], [0, 1, 1, 1]],
    "reward": [0.5, 14.0],
    "values": [[0.2, -0.1, 0.4, 0.9], [0.5, 0.3, -0.2, 0.6]],
}
PPO = {"kl_coef": 0.02, "gamma": 1.0, "lam": 0.95}

METHODS = [
    Method(
        "rso",
        "2309.06657",
        formulas.rso,
        {
            "first_pass": ({"beta": 0.5}, CANDIDATES),
            "two_passes": ({"beta": 0.5, "num_samples": 3}, {**CANDIDATES, **UNIFORMS}),
            "all": ({"beta": 2.0, "num_samples": 5}, {**CANDIDATES, **UNIFORMS}),
        },
    ),
    Method(
        "curry_dpo",
        "2403.07230",
        formulas.curry_dpo,
        {
            "easy_first": ({"order": "easy_to_hard"}, {"ratings": [4.0, 8.5, 2.0, 7.0]}),
            "hard_first": ({"order": "hard_to_easy"}, {"ratings": [4.0, 8.5, 2.0, 7.0]}),
            "tie": ({"order": "easy_to_hard"}, {"ratings": [6.0, 3.0, 6.0]}),
        },
        keys=("pairs_chosen_rejected", "gaps"),
    ),
    Method(
        "apo_accelerated",
        "2410.06293",
        formulas.apo_accelerated,
        {
            name: (
                {"alpha": alpha},
                {
                    "log_pi_hat_t": logits(2, 3, seed=21),
                    "log_pi_hat_tm1": logits(2, 3, seed=22),
                    "theta_hat_t": [0.75, -2.0, 0.0],
                    "theta_hat_tm1": [0.5, -1.0, 0.25],
                },
            )
            for name, alpha in (("third", 0.3), ("none", 0.0), ("full", 1.0))
        },
    ),
    Method(
        "hypo",
        "2406.01462",
        formulas.hypo,
        {
            name: (
                {"beta": 0.1, "lam": 0.01, "rloo": rloo},
                {
                    **NEAR,
                    "policy_sample_logps": [[-20.0, -31.5, -12.0], [-8.0, -9.5, -7.25]],
                    "ref_sample_logps": [[-21.5, -31.0, -13.0], [-8.5, -9.0, -9.25]],
                },
            )
            for name, rloo in (("plain", False), ("leave_one_out", True))
        },
        (*REFERENCE, "policy_sample_logps"),
        grads_of="loss",
        note="only the gradient of the online term has a meaning",
    ),
    Method(
        "p3o",
        "2310.00212",
        formulas.p3o,
        {
            "separate": ({"variant": "v1", "eps": 0.2}, SAMPLES),
            "joint": ({"variant": "v2", "eps": 0.2, "delta": 0.2}, SAMPLES),
            "joint_wide": ({"variant": "v2", "eps": 0.7, "delta": 2.0}, SAMPLES),
        },
        ("policy_logps_1", "policy_logps_2"),
    ),
    Method(
        "rto",
        "2404.18922",
        formulas.rto,
        {
            "clipped": ({"beta1": 0.05, "clip": 0.05, **PPO}, TRAJECTORIES),
            "unclipped": ({"beta1": 0.3, "clip": 0.0, **PPO}, TRAJECTORIES),
            "discounted": (
                {"beta1": 0.3, "clip": 0.1, "kl_coef": 0.1, "gamma": 0.9, "lam": 0.7},
                TRAJECTORIES,
            ),
        },
    ),
    Method(
        "gpm",
        "2410.02197",
        formulas.gpm,
        {
            "one_plane": (
                {"tau": 0.1},
                {"v_chosen": [[0.6, -0.8], [0.0, 1.0]], "v_rejected": [[0.8, 0.6], [-0.6, 0.8]]},
            ),
            "scaled_planes": (
                {"tau": 0.5, "scales": [1.25, 0.25]},
                {"v_chosen": logits(2, 4, seed=31), "v_rejected": logits(2, 4, seed=32)},
            ),
        },
        ("v_chosen", "v_rejected"),
    ),
    Method(
        "oppo",
        "2305.16217",
        formulas.oppo,
        {
            "default": (
                {"margin": 1.0, "pref_ratio": 0.1, "norm_ratio": 0.1, "pd_eps": 1e-6},
                {
                    "z_star": [0.3, 0.1, -0.4],
                    "phi_preferred": [[0.25, 0.5, -0.5], [0.75, -0.1, 0.2], [0.0, 0.6, 0.1]],
                    "phi_other": [[-0.5, 0.4, 0.3], [0.2, 0.2, 0.9], [-2.0, 1.0, 0.5]],
                    "recon": 0.6,
                },
            )
        },
        ("z_star", "phi_preferred", "phi_other"),
        grads_of="loss",
    ),
]
