"""What objectives on the policy's own samples are for, and where DPO differs."""

from itertools import count

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from trillium.objectives.batch import PairLogps
from trillium.objectives.companions import xpo
from trillium.objectives.pairwise import dpo
from trillium.objectives.rollouts import hypo, p3o, rto

from .tabular import (
    EACH_SEED,
    F64,
    SEEDS,
    Pairs,
    World,
    descend,
    linear_world,
    look_up,
    normal,
    per_seed,
    report,
    sample,
    sample_pairs,
    table_world,
    train_pairs,
    uniform,
)


def test_hypo_holds_the_kl_where_offline_pairs_do_not_reach() -> None:
    """Pairs cover half of the responses: HyPO's own samples keep it nearer to the reference.

    Its reward, printed beside, is lower for that too: what shows is the control of the divergence.
    """
    world = linear_world()
    pairs = sample_pairs(World(world.reference[..., :6], world.reward[..., :6]), 60)
    fixed, seeds = pairs.of(world.reference), count(1000)

    def loss(theta: Tensor) -> Tensor:
        logps = world.logps(theta)
        four = logps.detach()[:, :, None].expand(-1, -1, 4, -1)
        drawn = sample(four, next(seeds))
        ours, theirs = (table.gather(2, drawn).flatten(0, 1) for table in (logps, world.reference))
        return hypo(
            pairs.of(logps), fixed, policy_sample=ours, reference_sample=theirs, lam=0.1, rloo=True
        )

    policies = {"hypo": descend(loss, world.start), "dpo": train_pairs(world, pairs, dpo)}
    kl = {name: world.divergence(theta) for name, theta in policies.items()}
    order = {name: pairs.accuracy(world.logratios(theta)) for name, theta in policies.items()}
    report("hypo: D(policy || reference) in nats", **kl)
    report("hypo: share of pairs in order", **order)
    report("hypo: expected reward", **{k: world.value(theta) for k, theta in policies.items()})
    assert (kl["hypo"] < kl["dpo"]).all()
    assert (order["hypo"] > 0.8).all()


def test_xpo_finds_rare_good_responses_sooner_than_online_dpo() -> None:
    """The best response has probability e^-6 at first; pushing down reference samples finds some.

    Online DPO is the same loop without the bonus. Means over 20 prompts (five seeds of four).
    """
    base = table_world()
    is_rare = one_hot((uniform(60, 4) * 12).long(), 12).bool()
    reference = base.reference.masked_fill(is_rare, -6.0).log_softmax(-1)
    world = World(reference, base.reward.masked_fill(is_rare, 4.0))
    prompt = torch.arange(4).expand(len(SEEDS), -1)

    def learn(alpha: float) -> Tensor:
        seeds = count(1000)

        def loss(theta: Tensor) -> Tensor:
            logps = world.logps(theta)
            ours, theirs = (sample(x.detach(), next(seeds)) for x in (logps, reference))
            is_better, worse = (look_up(world.reward, prompt, each) for each in (ours, theirs))
            pairs = Pairs(prompt, ours, theirs).flipped(is_better < worse)
            drawn = look_up(logps, prompt, theirs)
            return xpo(pairs.of(logps), pairs.of(reference), reference_sample=drawn, alpha=alpha)

        return descend(loss, world.start)

    ours, plain = learn(0.05), learn(0.0)
    found, missed = (
        per_seed(world.logps(theta).exp()[is_rare].reshape(len(SEEDS), -1))
        for theta in (ours, plain)
    )
    report("xpo: probability of the rare best response", xpo=found, online_dpo=missed)
    report("xpo: expected reward", xpo=world.value(ours), online_dpo=world.value(plain))
    assert found.mean() > missed.mean() + 0.1
    assert (world.value(ours) > world.value(plain)).all()


def test_p3o_weighs_how_much_better_and_ignores_a_shift_of_rewards() -> None:
    """Rewards with heavy tails and too few parameters: sizes of differences beat mere order.

    Both sample two responses at every step. A constant added to all rewards of a prompt changes
    nothing for P3O. Asserted for the mean over seeds.
    """
    base = linear_world()
    world = World(base.reference, normal(70, 8, 12) ** 3, base.features)
    prompt = torch.arange(8).repeat(2).expand(len(SEEDS), -1)

    def learn(objective: str, shift: Tensor) -> Tensor:
        seeds = count(1000)

        def loss(theta: Tensor) -> Tensor:
            logps = world.logps(theta)
            drawn = [sample(logps.detach()[EACH_SEED, prompt], next(seeds)) for _ in range(2)]
            first, second = (look_up(logps, prompt, each) for each in drawn)
            r, s = (look_up(world.reward + shift, prompt, each) for each in drawn)
            if objective == "dpo":
                pairs = Pairs(prompt, *drawn).flipped(r < s)
                return dpo(pairs.of(logps), pairs.of(world.reference)) * (r != s)
            old = {"old_first": first.detach(), "old_second": second.detach()}
            return p3o(first, second, **old, reward_first=r, reward_second=s)

        return world.value(descend(loss, world.start))

    none = torch.zeros(len(SEEDS), 8, 1, dtype=F64)
    ours, shifted, plain = learn("p3o", none), learn("p3o", none + 64), learn("dpo", none)
    report("p3o: expected reward", p3o=ours, p3o_shifted=shifted, online_dpo=plain)
    torch.testing.assert_close(shifted, ours, rtol=1e-6, atol=1e-6)
    assert ours.mean() > plain.mean() + 0.1


def look_up_choices(table: Tensor, choice: Tensor) -> Tensor:
    """Return the log-probability of each choice, rows of all seeds stacked."""
    step = torch.arange(choice.shape[-1])
    return table.log_softmax(-1)[EACH_SEED[..., None], step, choice].flatten(0, 1)


def align_offline(reference: Tensor) -> Tensor:
    """Return DPO's table from 20 pairs of random choices; more right choices (0) are better."""
    offline = (uniform(60, 40, reference.shape[1]) * reference.shape[2]).long()
    first, second = offline.chunk(2, dim=1)
    gap = ((first == 0).sum(-1) - (second == 0).sum(-1)).flatten()

    def pair(table: Tensor) -> PairLogps:
        a, b = (look_up_choices(table, side).sum(-1) for side in (first, second))
        return PairLogps(torch.where(gap > 0, a, b), torch.where(gap > 0, b, a))

    return descend(lambda table: dpo(pair(table), pair(reference)) * (gap != 0), reference)


def test_rto_learns_faster_than_a_reward_paid_at_the_end() -> None:
    """Six choices, their share of right ones paid at the end: token rewards of a DPO model help.

    Both have 40 policy-gradient steps of eight samples; the DPO model saw 20 offline pairs. Figures
    are shares of right choices, chance being 0.25; the DPO model itself, with five times the
    steps, is printed beside them and is ahead on the mean.
    """
    n_rows = 8
    reference = torch.zeros(len(SEEDS), 6, 4, dtype=F64).log_softmax(-1)
    aligned = align_offline(reference)
    scored = torch.ones(len(SEEDS) * n_rows, 6, dtype=torch.bool)

    def learn(beta1: float) -> Tensor:
        table = reference
        for seed in range(1000, 1040):
            drawn = sample(table[:, None].expand(-1, n_rows, -1, -1), seed)
            models = (look_up_choices(each, drawn) for each in (aligned, table, reference))
            reward = (drawn == 0).double().mean(-1).flatten()
            values = torch.zeros(scored.shape, dtype=F64)
            targets = rto(*models, scored=scored, reward=reward, values=values, beta1=beta1)
            advantage = targets.advantages.reshape(drawn.shape)
            centred = (advantage - advantage.mean(1, keepdim=True)).flatten(0, 1)
            table = descend(
                lambda x, a=centred, y=drawn: -a * look_up_choices(x, y), table, n_steps=1
            )
        return per_seed(table.softmax(-1)[..., 0])

    dense, sparse, offline = learn(0.05), learn(0.0), per_seed(aligned.softmax(-1)[..., 0])
    report("rto: share of right choices", rto=dense, end_only=sparse, dpo=offline)
    assert (dense > sparse).all()
