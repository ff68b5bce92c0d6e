"""What objectives on single responses are for, where DPO needs pairs."""

import torch
from trillium.objectives.batch import SingleLogps
from trillium.objectives.pairwise import dpo
from trillium.objectives.unpaired import kto, kto_reference_point, meet, poft

from .tabular import (
    EACH_SEED,
    F64,
    SEEDS,
    World,
    descend,
    linear_world,
    look_up,
    normal,
    report,
    sample,
    sample_pairs,
    sample_prompts,
    train_pairs,
    uniform,
)


def test_kto_learns_from_verdicts_no_two_of_which_make_a_pair() -> None:
    """Forty prompts, one verdict each: KTO orders unseen pairs as well as DPO does from 20 pairs.

    On KTO's own rows DPO could not take one step.
    """
    world = linear_world(n_prompts=40)
    prompt = torch.arange(40).expand(len(SEEDS), -1)
    response = (uniform(10, 40) * 12).long()
    label = (look_up(world.reward, prompt, response) > 0).double().reshape(prompt.shape)

    def rows(table: torch.Tensor, *, shift: int) -> list[SingleLogps]:
        logps = look_up(table, prompt.roll(shift, 1), response).reshape(prompt.shape)
        return [SingleLogps(each) for each in logps]

    fixed, mismatched = rows(world.reference, shift=0), rows(world.reference, shift=1)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        policy, other = (rows(world.logps(theta), shift=shift) for shift in (0, 1))
        points = map(kto_reference_point, other, mismatched)
        batches = zip(policy, fixed, label, points, strict=True)
        return torch.stack([kto(p, r, label=y, kl=kl).mean() for p, r, y, kl in batches])

    pairs = sample_pairs(world, 20, weights=torch.ones_like(world.reference))
    unseen = sample_pairs(world, 400, seed=50)
    ours, plain = descend(loss, world.start), train_pairs(world, pairs, dpo)
    order, dpo_order = (unseen.accuracy(world.logratios(each)) for each in (ours, plain))
    report("kto: share of unseen pairs in order", kto_40_rows=order, dpo_20_pairs=dpo_order)
    report("kto: expected reward", kto=world.value(ours), reference=world.value(world.start))
    assert (order > 0.75).all()
    assert order.mean() > dpo_order.mean() - 0.05


def test_poft_learns_little_from_targets_that_aligned_models_dislike() -> None:
    """With 30 % of the targets from an opposite taste, PoFT keeps most of what they cost plain SFT.

    Two imperfect aligned models give the scores. There are no pairs, so SFT stands in for DPO.
    """
    world = linear_world()
    prompt = sample_prompts(10, 60, 8)
    good, bad = (World(world.reference, sign * world.reward).optimum(1.0) for sign in (1, -1))
    is_bad = uniform(11, 60) < 0.3
    rows = torch.where(is_bad[..., None], bad[EACH_SEED, prompt], good[EACH_SEED, prompt])
    response = sample(rows, 12)
    models = [(good + 0.5 * normal(seed, 8, 12)).log_softmax(-1) for seed in (13, 14)]
    aligned = torch.stack([look_up(each, prompt, response) for each in models], -1)
    lengths = torch.ones(len(aligned), dtype=torch.long)

    def logps(theta: torch.Tensor) -> torch.Tensor:
        return look_up(world.logps(theta), prompt, response)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return poft(SingleLogps(logps(theta), lengths), aligned_mean_logps=aligned)

    ours, plain = descend(loss, world.start), descend(lambda theta: -logps(theta), world.start)
    clean = descend(lambda theta: -logps(theta) * ~is_bad.flatten(), world.start)
    values = [world.value(theta) for theta in (ours, plain, clean)]
    report("poft: expected reward", poft=values[0], sft=values[1], sft_clean=values[2])
    assert (values[0] > values[1]).all()
    assert values[2].mean() - values[0].mean() < (values[2].mean() - values[1].mean()) / 2


def test_meet_serves_the_good_from_mixed_responses() -> None:
    """Half of the responses are bad: two adapters keep them apart where one model learns both.

    With independent adapters this is no more than imitating the good half; whether the bad half
    helps a shared trunk is not shown here. There are no pairs, so SFT stands in for DPO.
    """
    world = linear_world()
    prompt = sample_prompts(10, 60, 8)
    is_bad = uniform(11, 60) < 0.5
    sign = torch.where(is_bad, -1.0, 1.0)[..., None]
    rows = world.reference[EACH_SEED, prompt] + sign * world.reward[EACH_SEED, prompt]
    response = sample(rows, 12)

    def logps(theta: torch.Tensor) -> torch.Tensor:
        return look_up(world.logps(theta), prompt, response)

    def loss(adapters: torch.Tensor) -> torch.Tensor:
        good, bad = (logps(adapters[:, k]) for k in (0, 1))
        rows = SingleLogps(good[~is_bad.flatten()]), SingleLogps(bad[is_bad.flatten()])
        return meet(*rows, reduction="sum")

    adapters = descend(loss, torch.zeros(len(SEEDS), 2, 6, dtype=F64))
    mixed = descend(lambda theta: -logps(theta), world.start)
    values = [world.value(theta) for theta in (adapters[:, 0], adapters[:, 1], mixed)]
    report("meet: expected reward", good=values[0], bad=values[1], sft=values[2])
    assert (values[0] > values[2] + 0.3).all()
    assert (values[1] < values[2] - 0.3).all()
