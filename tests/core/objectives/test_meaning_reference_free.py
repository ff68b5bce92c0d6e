"""What the objectives without a reference are for, and where plain DPO differs."""

from functools import partial

import pytest
import torch
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.companions import slic, tpo_triple
from trillium.objectives.pairwise import dpo, ln_dpo
from trillium.objectives.reference_free import asft, cpo, orpo, simpo

from .tabular import (
    END,
    SEEDS,
    Chains,
    PairObjective,
    descend,
    linear_world,
    look_up,
    normal,
    occupancy,
    per_seed,
    prefer,
    report,
    sample_chains,
    sample_pairs,
    train_chains,
    train_pairs,
)


def imitate(policy: PairLogps, _: PairLogps) -> torch.Tensor:
    """Return the supervised loss of the chosen response."""
    return -policy.chosen


@pytest.mark.parametrize(
    ("name", "objective", "least"),
    [
        ("orpo", lambda policy, _: orpo(policy), 0.0),
        ("asft", lambda policy, _: asft(policy), 0.0),
        ("cpo", lambda policy, _: cpo(policy), 0.0),
        ("slic", lambda policy, _: slic(policy, target=policy.chosen), -2.0),
    ],
)
def test_likelihood_holds_the_chosen_up_without_any_reference(
    name: str, objective: PairObjective, least: float
) -> None:
    """ORPO, ASFT and CPO raise the chosen, which DPO lets fall; SLiC slows that fall.

    Beside plain imitation of the chosen the margin is wider and the expected reward higher, in
    every seed: the rejected do count. With the default weights of the first three that is little,
    and imitation alone orders as many pairs; heavier weights are in the next test.
    """
    world = linear_world()
    pairs = sample_pairs(world, 60)
    policies = {
        title: train_pairs(world, pairs, each)
        for title, each in ((name, objective), ("dpo", dpo), ("imitation", imitate))
    }
    moved = {title: pairs.of(world.logratios(theta)) for title, theta in policies.items()}
    change = {title: per_seed(pair.chosen) for title, pair in moved.items()}
    margin = {title: per_seed(pair.chosen - pair.rejected) for title, pair in moved.items()}
    order = {title: pairs.accuracy(world.logps(theta)) for title, theta in policies.items()}
    report(f"{name}: change of the chosen in nats", **change)
    report(f"{name}: margin in nats", **margin)
    report(f"{name}: share of pairs in order", **order)
    value = {title: world.value(theta) for title, theta in policies.items()}
    report(f"{name}: expected reward", **value)
    assert (change[name] > least).all()
    assert (change["dpo"] < -5).all()
    assert (margin[name] > margin["imitation"]).all()
    assert (value[name] > value["imitation"]).all()


@pytest.mark.parametrize(
    ("name", "objective", "gain"),
    [
        ("orpo, lam = 1", lambda policy, _: orpo(policy, lam=1.0), 0.03),
        ("cpo, beta = 1", lambda policy, _: cpo(policy, beta=1.0), 0.03),
        ("asft, lam = 5", lambda policy, _: asft(policy, lam=5.0), 0.0),
    ],
)
def test_the_contrast_orders_unseen_pairs_that_imitation_does_not(
    name: str, objective: PairObjective, gain: float
) -> None:
    """With a weight that can be felt, ORPO and CPO order unseen pairs better than imitation does.

    ORPO at the default of its released code. ASFT gains next to nothing even at a weight of 5: its
    contrast is -log(1 - p), whose gradient vanishes with the probability of the rejected response,
    so it only bounds what is likely already. That is its form, not our problem's.
    """
    world = linear_world()
    pairs, unseen = sample_pairs(world, 60), sample_pairs(world, 400, seed=50)
    order = {
        title: unseen.accuracy(world.logps(train_pairs(world, pairs, each)))
        for title, each in ((name, objective), ("imitation", imitate))
    }
    report(f"{name}: share of unseen pairs in order", **order)
    assert (order[name] > order["imitation"] + gain).all()


def test_tpo_triple_imitates_the_gold_response_and_ranks_the_others() -> None:
    """With the best response as gold, TPO gives it more mass than DPO or CPO on the same pairs."""
    world = linear_world()
    pairs = sample_pairs(world, 60)
    gold = world.reward.argmax(-1).gather(1, pairs.prompt)

    def triple(theta: torch.Tensor) -> torch.Tensor:
        policy = pairs.of(world.logps(theta))
        logps = look_up(world.logps(theta), pairs.prompt, gold)
        return tpo_triple(policy, gold=SingleLogps(logps, policy.n_chosen))

    policies = {
        "tpo_triple": descend(triple, world.start),
        "dpo": train_pairs(world, pairs, dpo),
        "cpo": train_pairs(world, pairs, lambda policy, _: cpo(policy)),
    }
    figures = {
        name: per_seed(look_up(world.logps(theta), pairs.prompt, gold).exp())
        for name, theta in policies.items()
    }
    report("tpo_triple: probability of the gold response", **figures)
    assert (figures["tpo_triple"] > figures["dpo"] - 0.01).all()
    assert figures["tpo_triple"].mean() > figures["dpo"].mean() + 0.05
    assert (figures["tpo_triple"] > figures["cpo"] + 0.3).all()


def correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation over rows, by seed."""
    first, second = (x - x.mean(-1, keepdim=True) for x in (first, second))
    return (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))


@pytest.mark.parametrize("name", ["ln_dpo", "simpo"])
def test_length_earns_and_costs_nothing_under_means_per_token(name: str) -> None:
    """A judge of mean quality: rewards per token follow the judge, DPO's sums follow length too.

    Asserted on fresh responses: how far the correlation of the implicit reward with length is from
    that of the judge's own score.
    """
    reference = normal(4, 6, 6)
    quality = torch.cat([torch.zeros(len(SEEDS), 1), normal(5, 5)], -1)[:, None].expand(-1, 6, -1)

    def judge(chains: Chains) -> torch.Tensor:
        n_inner = (chains.scored & (chains.token != END)).sum(-1)
        return chains.look_up(quality).sum(-1).reshape(n_inner.shape) / n_inner.clamp(min=1)

    chains, fresh = (sample_chains(reference, 400, 12, seed=seed) for seed in (20, 60))
    pairs, lengths = prefer(chains, judge(chains)), fresh.scored.sum(-1).double()

    def rewards(objective: PairObjective, base: torch.Tensor) -> torch.Tensor:
        fixed = pairs.logps(reference)
        table = descend(lambda each: objective(pairs.logps(each), fixed), reference)
        return fresh.token_logps(table).sum(-1).reshape(lengths.shape) - base

    fixed = fresh.token_logps(reference).sum(-1).reshape(lengths.shape)
    ours = {
        "ln_dpo": lambda: rewards(ln_dpo, fixed) / lengths,
        "simpo": lambda: rewards(lambda policy, _: simpo(policy), torch.zeros(())) / lengths,
    }[name]()
    plain = rewards(dpo, fixed)
    target = correlation(judge(fresh), lengths)
    errors, merit = {}, {}
    for title, reward in ((name, ours), ("dpo", plain)):
        errors[title] = (correlation(reward, lengths) - target).abs()
        merit[title] = correlation(reward, judge(fresh))
    report(f"{name}: error of the reward's correlation with length", **errors)
    report(f"{name}: correlation of the reward with the judge", **merit)
    assert (errors[name] < errors["dpo"] - 0.1).all()
    assert (merit[name] > merit["dpo"] + 0.1).all()


@pytest.mark.parametrize(
    ("name", "objective", "n_shorter"),
    [("ln_dpo", partial(ln_dpo, beta=0.5), 5), ("simpo", lambda policy, _: simpo(policy), 4)],
)
def test_policies_of_means_per_token_grow_less(
    name: str, objective: PairObjective, n_shorter: int
) -> None:
    """A judge of mean quality, whose chosen are the shorter: DPO still ends at longer responses.

    A sum pays for every token that is likelier than before: the policy learns not to stop. LN-DPO
    with the same beta is shorter and of higher mean quality in all five seeds. SimPO is in four of
    them and on the mean: without a reference nothing holds its stop token in the fifth, where
    it runs to the limit of 12 tokens. None keeps the length of the reference: the claim that means
    per token end the growth of length is not what shows here, only that they slow it.
    """
    reference = normal(4, 6, 6)
    quality = torch.cat([torch.zeros(len(SEEDS), 1), normal(5, 5)], -1)[:, None].expand(-1, 6, -1)
    chains = sample_chains(reference, 400, 12)
    n_inner = (chains.scored & (chains.token != END)).sum(-1)
    merit = chains.look_up(quality).sum(-1).reshape(n_inner.shape) / n_inner.clamp(min=1)
    pairs = prefer(chains, merit)
    tables = {
        "reference": reference,
        name: train_chains(reference, pairs, objective),
        "dpo": train_chains(reference, pairs, partial(dpo, beta=0.5)),
    }
    visits = {title: occupancy(table, 12)[:, 1:] for title, table in tables.items()}
    length = {title: each.sum(-1) for title, each in visits.items()}
    value = {
        title: (each * quality[:, 0, 1:]).sum(-1) / length[title] for title, each in visits.items()
    }
    report(f"{name}: expected length", **length)
    report(f"{name}: mean quality per token", **value)
    assert (pairs.chosen.lengths.double().mean() < pairs.rejected.lengths.double().mean()).all()
    assert (length[name] < length["dpo"]).sum() >= n_shorter
    assert length[name].mean() < length["dpo"].mean() - 1
    assert (value[name] > value["dpo"]).all()
