"""What the pairwise objectives against a reference are for, and where plain DPO differs."""

from functools import partial

import pytest
import torch
from trillium.objectives.pairwise import dpo, fdpo, hinge, ipo, rdpo, rpo
from trillium.objectives.targets import flex_dpo

from .tabular import (
    PairObjective,
    distance,
    linear_world,
    per_seed,
    report,
    sample_pairs,
    table_world,
    train_pairs,
    uniform,
)


def test_dpo_finds_the_optimum_of_reward_under_a_kl_penalty() -> None:
    """From Bradley-Terry labels alone DPO nears reference * exp(reward / beta), normalised."""
    world = table_world()
    pairs = sample_pairs(world, 6000, is_noisy=True, weights=torch.ones_like(world.reward))
    learned = world.logps(train_pairs(world, pairs, partial(dpo, beta=1.0)))
    goal = world.optimum(beta=1.0)
    far, near = distance(world.reference, goal), distance(learned, goal)
    report("dpo: total variation to the optimum", reference=far, dpo=near)
    assert (near < far / 4).all()


@pytest.mark.parametrize(
    ("name", "objective", "largest"),
    [("ipo", partial(ipo, tau=0.25), 2.0), ("hinge", partial(hinge, beta=0.5), 4.0)],
)
def test_ipo_and_hinge_stop_where_deterministic_labels_drive_dpo_on(
    name: str, objective: PairObjective, largest: float
) -> None:
    """When no label contradicts another, DPO's margin grows for ever; theirs has a bound.

    The bound of the mean margin is 1/(2 tau) = 2 for IPO. For hinge every pair stops at 1/beta = 2,
    and pairs that others imply go further; twice that is never reached.
    """
    world = table_world()
    pairs = sample_pairs(world, 20)

    def margin(objective: PairObjective, n_steps: int) -> torch.Tensor:
        theta = train_pairs(world, pairs, objective, n_steps=n_steps)
        u = pairs.of(world.logratios(theta))
        return per_seed(u.chosen - u.rejected)

    ours = [margin(objective, n_steps) for n_steps in (200, 800)]
    plain = [margin(partial(dpo, beta=0.5), n_steps) for n_steps in (200, 800)]
    report(f"{name}: mean margin in nats after 200 steps", **{name: ours[0], "dpo": plain[0]})
    report(f"{name}: mean margin in nats after 800 steps", **{name: ours[1], "dpo": plain[1]})
    assert (ours[1] <= largest).all()
    assert ((ours[1] - ours[0]).abs() < 0.05).all()
    assert (plain[1] - plain[0] > 2.0).all()


def test_rdpo_under_flipped_labels_learns_what_dpo_learns_from_clean_ones() -> None:
    """With 20 % of the labels flipped, rDPO ends near clean DPO, and above noisy DPO in reward."""
    world = linear_world()
    clean = sample_pairs(world, 2000, is_noisy=True)
    noisy = clean.flipped(uniform(30, 2000) < 0.2)
    goal = train_pairs(world, clean, partial(dpo, beta=0.5))
    plain = train_pairs(world, noisy, partial(dpo, beta=0.5))
    robust = train_pairs(world, noisy, partial(rdpo, beta=0.5, epsilon=0.2))
    errors = [(each - goal).norm(dim=-1) / goal.norm(dim=-1) for each in (robust, plain)]
    values = [world.value(each) for each in (robust, plain, goal)]
    report("rdpo: distance of the parameters to clean DPO's", rdpo=errors[0], dpo=errors[1])
    report("rdpo: expected reward", rdpo=values[0], dpo=values[1], clean=values[2])
    assert (errors[0] < errors[1]).all()
    assert (values[0] > values[1]).all()


@pytest.mark.parametrize(
    ("name", "objective", "largest_fall"),
    [
        ("rpo mean", partial(rpo, beta=0.5, eta=0.2, sft="mean"), 0.5),
        ("rpo sum_beta", partial(rpo, beta=0.5, eta=0.2), 1.0),
        ("flex_dpo", partial(flex_dpo, beta_pos=0.5, beta_neg=0.25), 1.0),
        ("flex_dpo sft", partial(flex_dpo, beta_pos=0.5, beta_neg=0.25, sft_coef=0.1), 0.1),
    ],
)
def test_the_chosen_stay_likely_where_dpo_lets_them_fall(
    name: str, objective: PairObjective, largest_fall: float
) -> None:
    """With shared parameters DPO moves mass to unseen responses; a likelihood term keeps it.

    A smaller beta on the rejected side slows that fall, and with a likelihood term it ends.
    """
    world = linear_world()
    pairs = sample_pairs(world, 60)
    ours, plain = (
        pairs.of(world.logratios(train_pairs(world, pairs, each)))
        for each in (objective, partial(dpo, beta=0.5))
    )
    report(
        f"{name}: mean log-ratio of the chosen, share of pairs in order",
        **{f"{name} chosen": per_seed(ours.chosen), "dpo chosen": per_seed(plain.chosen)},
        **{f"{name} order": per_seed(ours.chosen > ours.rejected)},
        **{"dpo order": per_seed(plain.chosen > plain.rejected)},
    )
    assert (per_seed(ours.chosen) > -largest_fall).all()
    assert (per_seed(plain.chosen) < -2.0).all()
    assert (per_seed(ours.chosen > ours.rejected) > 0.85).all()


def test_fdpo_under_forward_kl_abandons_no_response() -> None:
    """Forward KL covers the reference: the worst log-ratio is bounded, the policy more diverse."""
    world = table_world()
    pairs = sample_pairs(world, 200, is_noisy=True)
    lost, entropy = {}, {}
    for name in ("forward_kl", "reverse_kl"):
        theta = train_pairs(world, pairs, partial(fdpo, divergence=name, beta=0.1))
        logps = world.logps(theta)
        lost[name] = world.logratios(theta).flatten(1).amin(-1)
        entropy[name] = per_seed(-(logps * logps.exp()).sum(-1))
    report("fdpo: lowest log-ratio of any response (reverse_kl is DPO)", **lost)
    report("fdpo: entropy in nats", **entropy)
    assert (lost["forward_kl"] > lost["reverse_kl"] + 5).all()
    assert (entropy["forward_kl"] > entropy["reverse_kl"]).all()
