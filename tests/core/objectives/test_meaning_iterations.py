"""What iterations, samplers and combinations are for, where one round of DPO differs."""

from functools import partial

import torch
from trillium.objectives.iterations import apo_accelerated, rso
from trillium.objectives.pairwise import dpo

from .tabular import (
    EACH_SEED,
    F64,
    SEEDS,
    Pairs,
    World,
    descend,
    distance,
    linear_world,
    normal,
    report,
    sample,
    sample_pairs,
    sample_prompts,
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
    mixes = [c * first + (1 - c) * second for c in shares]
    memory = torch.stack([worse(mix, 10, 90) for mix in mixes])
    combined = torch.stack(mixes)[memory.argmax(0), torch.arange(len(SEEDS))]
    ours, plain = worse(combined, 400, 100), worse(sequential, 400, 100)
    report("cofs: share of unseen pairs in order, worse domain", cofs=ours, sequential_dpo=plain)
    assert ours.mean() > plain.mean() + 0.1


def test_the_order_of_a_curriculum_is_nothing_to_a_log_linear_policy() -> None:
    """Curry-DPO: easy pairs first is not better here, and cannot be when the reference follows.

    In a policy whose log-probabilities are linear in its parameters, up to a normaliser that pairs
    cancel, a stage moves the parameters by what its own pairs say, wherever it begins: iterated
    stages commute, and hard first ends at the same policy to rounding. With a fixed reference the
    order matters, and all pairs mixed beat easy first on the mean; both are printed. What does show
    is that three pairs of a ranking beat its best and worst alone. Claims about the order need
    representations that early stages change, which this problem has not.
    """
    world = linear_world(n_features=24)
    prompt = sample_prompts(10, 40, 8)
    noise = -(-uniform(12, 40, 12).log()).log()
    drawn = (world.reference[EACH_SEED, prompt] + noise).topk(4).indices
    rating = world.reward[EACH_SEED[..., None], prompt[..., None], drawn] + normal(33, 40, 4)
    ranked = drawn.gather(-1, rating.argsort(-1, descending=True))

    def learn(stages: list[list[int]], *, follows: bool) -> torch.Tensor:
        theta = reference = world.start
        for places in stages:
            rejected = torch.cat([ranked[..., place] for place in places], 1)
            n = len(places)
            pairs = Pairs(prompt.repeat(1, n), ranked[..., 0].repeat(1, n), rejected)
            fixed = pairs.of(world.logps(reference))
            theta = descend(
                lambda x, p=pairs, r=fixed: dpo(p.of(world.logps(x)), r, beta=0.5),
                theta,
                n_steps=40,
                rate=0.01,
            )
            reference = theta if follows else reference
        return theta

    unseen, easy, hard = sample_pairs(world, 400, seed=50), [[3], [2], [1]], [[1], [2], [3]]
    moving = {"easy first": learn(easy, follows=True), "hard first": learn(hard, follows=True)}
    still = {
        "easy first": learn(easy, follows=False),
        "hard first": learn(hard, follows=False),
        "mixed": learn([[1, 2, 3]] * 3, follows=False),
        "best and worst": learn([[3]] * 3, follows=False),
    }
    for title, policies in (("iterated", moving), ("fixed reference", still)):
        order = {name: unseen.accuracy(world.logratios(x)) for name, x in policies.items()}
        report(f"curry_dpo, {title}: share of unseen pairs in order", **order)
    torch.testing.assert_close(moving["easy first"], moving["hard first"], rtol=1e-6, atol=1e-8)
    assert order["mixed"].mean() > order["easy first"].mean()
    assert order["mixed"].mean() > order["best and worst"].mean() + 0.02
