"""What iterations, samplers and combinations are for, where one round of DPO differs."""

from functools import partial

import torch
from trillium.objectives.iterations import apo_accelerated, cofs_combination, rso
from trillium.objectives.pairwise import dpo

from .tabular import (
    F64,
    SEEDS,
    World,
    descend,
    distance,
    linear_world,
    normal,
    report,
    sample,
    sample_pairs,
    table_world,
    train_pairs,
    uniform,
)


def test_apo_gains_reward_faster_than_the_same_rounds_of_dpo() -> None:
    """Five rounds of 30 steps, the reference following: extrapolation is ahead in every round."""
    world = table_world()
    pairs = sample_pairs(world, 200, is_noisy=True)

    def play(alpha: float) -> torch.Tensor:
        current = previous = world.start
        values = []
        for index in range(5):
            fixed = pairs.of(world.logps(current))
            stepped = descend(
                lambda theta, r=fixed: dpo(pairs.of(world.logps(theta)), r, beta=1.0),
                current,
                n_steps=30,
                rate=0.02,
            )
            current = apo_accelerated(stepped, previous, alpha=alpha) if index else stepped
            previous = stepped
            values.append(world.value(current))
        return torch.stack(values)

    ours, plain = play(0.3), play(0.0)
    for index in (1, 2, 4):
        title = f"apo_accelerated: expected reward after round {index + 1}"
        report(title, apo=ours[index], dpo=plain[index])
    assert (ours[1:] > plain[1:]).all()


def test_rso_samples_from_the_optimal_policy() -> None:
    """Eight kept of 64 reference samples, 25 times: their distribution is near the optimum's.

    DPO trains on pairs of the reference itself, which is far from it.
    """
    world = table_world(n_prompts=1)
    kept = torch.zeros_like(world.reference)
    for trial in range(25):
        drawn = sample(world.reference.expand(-1, 64, -1), 200 + trial)
        draws = uniform(300 + trial, 1280)
        for s in range(len(SEEDS)):
            chosen = list(rso(world.reward[s, 0, drawn[s]], draws[s], n_samples=8, beta=0.5))
            kept[s, 0] += torch.bincount(drawn[s, chosen], minlength=12) / 200
    goal = world.optimum(0.5)
    near, far = distance(kept.log(), goal), distance(world.reference, goal)
    report("rso: total variation to the optimal policy", rso=near, reference=far)
    assert (near < far / 3).all()


def test_cofs_keeps_an_old_domain_that_sequential_dpo_forgets() -> None:
    """Two domains of unrelated taste: a combination found on 10 + 10 remembered pairs serves both.

    Asserted for the worse of the two domains, on the mean over seeds; the new domain pays for it.
    """
    old = linear_world()
    taste = torch.einsum("sprf,sf->spr", old.features, normal(70, 6))
    new = World(old.reference, taste, old.features)
    objective = partial(dpo, beta=0.5)
    pairs = sample_pairs(new, 60, seed=80)
    first, second = (
        train_pairs(old, sample_pairs(old, 60), objective),
        train_pairs(new, pairs, objective),
    )
    fixed = pairs.of(new.reference)
    sequential = descend(lambda theta: objective(pairs.of(new.logps(theta)), fixed), first)

    def worse(theta: torch.Tensor, n_pairs: int, seed: int) -> torch.Tensor:
        tests = (sample_pairs(old, n_pairs, seed=seed), sample_pairs(new, n_pairs, seed=seed + 5))
        return torch.minimum(*(each.accuracy(old.logratios(theta)) for each in tests))

    shares = torch.linspace(0, 1, 11, dtype=F64)
    adapters = torch.stack([first, second])
    mixes = [cofs_combination(adapters, torch.stack([c, 1 - c])) for c in shares]
    memory = torch.stack([worse(mix, 10, 90) for mix in mixes])
    combined = torch.stack(mixes)[memory.argmax(0), torch.arange(len(SEEDS))]
    ours, plain = worse(combined, 400, 100), worse(sequential, 400, 100)
    report("cofs: share of unseen pairs in order, worse domain", cofs=ours, sequential_dpo=plain)
    assert ours.mean() > plain.mean() + 0.1
