"""What objectives with margins and win probabilities are for, and where plain DPO differs."""

import math
from functools import partial

import torch
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo
from trillium.objectives.targets import gpo, modpo, sppo

from .tabular import (
    SEEDS,
    Pairs,
    World,
    distance,
    linear_world,
    look_up,
    normal,
    per_seed,
    report,
    sample_pairs,
    table_world,
    train_pairs,
    uniform,
)


def test_modpo_traces_the_front_between_two_rewards() -> None:
    """Labels for one reward, margins for another: each weight finds its own optimum.

    As the weight moves to the second reward, the first falls and the second rises. DPO is one end.
    """
    world = table_world()
    second = World(world.reference, normal(6, 4, 12))
    pairs = sample_pairs(world, 2000, is_noisy=True, weights=torch.ones_like(world.reward))
    margin = pairs.of(second.reward)
    policies = [train_pairs(world, pairs, partial(dpo, beta=0.5))]
    for w in ((0.8, 0.2), (0.5, 0.5), (0.2, 0.8)):
        objective = partial(
            modpo, margin_chosen=margin.chosen, margin_rejected=margin.rejected, beta=0.5, w=w
        )
        policies.append(train_pairs(world, pairs, objective))
        goal = World(world.reference, w[0] * world.reward + w[1] * second.reward).optimum(0.5)
        learned, far = distance(world.logps(policies[-1]), goal), distance(world.reference, goal)
        report(f"modpo {w}: total variation to the optimum", modpo=learned, reference=far)
        assert (learned < far / 2).all()
    for name, judge, sign in (("first", world, -1), ("second", second, 1)):
        values = [judge.value(theta) for theta in policies]
        titles = ("dpo", "0.8 0.2", "0.5 0.5", "0.2 0.8")
        report(f"modpo: expected {name} reward", **dict(zip(titles, values, strict=True)))
        assert (sign * torch.stack(values).diff(dim=0) > 0).all()


def test_sppo_raises_the_chosen_where_dpo_only_widens_the_gap() -> None:
    """SPPO regresses each log-ratio to its own win probability, so the chosen rise."""
    world = linear_world()
    pairs = sample_pairs(world, 60)
    gap = world.reward[..., :, None] - world.reward[..., None, :]
    p = pairs.of(torch.einsum("spij,spj->spi", gap.sigmoid(), world.reference.exp()))
    regression = partial(sppo, beta=0.1, p_win_chosen=p.chosen, p_win_rejected=p.rejected)
    ours, plain = (
        pairs.of(world.logratios(train_pairs(world, pairs, each)))
        for each in (regression, partial(dpo, beta=0.1))
    )
    report(
        "sppo: mean log-ratio in nats",
        sppo_chosen=per_seed(ours.chosen),
        sppo_rejected=per_seed(ours.rejected),
        dpo_chosen=per_seed(plain.chosen),
        dpo_rejected=per_seed(plain.rejected),
    )
    assert (per_seed(ours.chosen) > 0).all()
    assert (per_seed(ours.rejected) < -1).all()
    assert (per_seed(plain.chosen) < -2).all()


def cyclic_game(n: int) -> torch.Tensor:
    """Return scores[seed, i, j], positive where i beats j: points around a circle, with jitter."""
    angle = 2 * math.pi * (torch.arange(n) + 0.5 * uniform(7, n)) / n
    return (angle[:, None, :] - angle[:, :, None]).sin()


def exploitability(policy: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return what the best response gains against the policy; zero at the equilibrium."""
    return torch.einsum("sij,sj->si", scores, policy).amax(-1)


def test_gpo_approaches_the_equilibrium_of_a_cycle_where_dpo_stays_exploitable() -> None:
    """A cycle has no best response: GPO's rounds average to the equilibrium, DPO cannot see it.

    Both have 30 rounds of 40 steps on all pairs, the reference being the policy of the last round;
    DPO sees the preference probabilities themselves, which are those of the same scores.
    """
    scores = cyclic_game(6)
    first, second = torch.combinations(torch.arange(6)).T.expand(len(SEEDS), -1, -1).unbind(1)
    pairs = Pairs(torch.zeros_like(first), first, second)
    p = look_up(scores, first, second).sigmoid()
    start = normal(8, 1, 6).log_softmax(-1)

    def play(name: str) -> torch.Tensor:
        current, visited = start, []
        for _ in range(30):
            s = pairs.of(torch.einsum("sij,spj->spi", scores, current.exp()))
            objective = {
                "gpo": partial(gpo, beta=2.0, score_chosen=s.chosen, score_rejected=s.rejected),
                "dpo": partial(soft_dpo, p=p),
            }[name]
            world = World(current, torch.zeros_like(current))
            current = world.logps(train_pairs(world, pairs, objective, n_steps=40))
            visited.append(current.exp()[:, 0])
        return exploitability(torch.stack(visited).mean(0), scores)

    ours, plain, before = play("gpo"), play("dpo"), exploitability(start.exp()[:, 0], scores)
    title = "gpo: gain of the best response against the average policy"
    report(title, gpo=ours, dpo=plain, reference=before)


def soft_dpo(policy: PairLogps, reference: PairLogps, *, p: torch.Tensor) -> torch.Tensor:
    """Return DPO's expected loss when the first response wins with probability p."""
    swapped = [PairLogps(each.rejected, each.chosen) for each in (policy, reference)]
    return p * dpo(policy, reference, beta=2.0) + (1 - p) * dpo(*swapped, beta=2.0)
