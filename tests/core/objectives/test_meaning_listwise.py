"""What whole rankings are for, where DPO sees one pair of them."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from trillium.objectives.batch import ListLogps, ListSteps, PairLogps
from trillium.objectives.listwise import lipo, pro
from trillium.objectives.pairwise import dpo
from trillium.objectives.tree import tree_tpo

from .tabular import (
    EACH_SEED,
    SEEDS,
    Pairs,
    World,
    descend,
    linear_world,
    look_up,
    report,
    sample,
    sample_pairs,
    sample_prompts,
    train_pairs,
    uniform,
)

N_LISTS = 20


@dataclass(frozen=True)
class Lists:
    """Ranked responses, best first; tensors are by seed, list and rank."""

    prompt: torch.Tensor
    response: torch.Tensor

    def of(self, table: torch.Tensor) -> ListLogps:
        size = self.response.shape[-1]
        group = torch.arange(len(SEEDS) * N_LISTS).repeat_interleave(size)
        flat = (each.reshape(len(SEEDS), -1) for each in (self.prompt, self.response))
        return ListLogps(look_up(table, *flat), group, torch.ones_like(group))

    def at(self, *ranks: int) -> "Lists":
        return Lists(self.prompt[..., ranks], self.response[..., ranks])

    def pairs(self, chosen: int, rejected: int) -> Pairs:
        return Pairs(self.prompt[..., 0], self.response[..., chosen], self.response[..., rejected])


def sample_lists(world: World) -> Lists:
    """Draw four different responses of the reference to each of 20 prompts, and rank them."""
    prompt = sample_prompts(10, N_LISTS, world.reward.shape[1])
    noise = -(-uniform(12, N_LISTS, world.reward.shape[2]).log()).log()
    drawn = (world.reference[EACH_SEED, prompt] + noise).topk(4).indices
    reward = world.reward[EACH_SEED[..., None], prompt[..., None], drawn]
    order = reward.argsort(-1, descending=True)
    return Lists(prompt[..., None].expand(-1, -1, 4), drawn.gather(-1, order))


@pytest.mark.parametrize("variant", ["lambda", "list_mle"])
def test_lipo_on_lists_of_four_beats_dpo_on_pairs(variant: str) -> None:
    """Four ranked responses say more than two: LiPO orders unseen pairs better than DPO.

    DPO sees the best and the worst of each list, or its best two; the labels are how often a
    response wins against the others of its prompt.
    """
    world = linear_world()
    lists = sample_lists(world)
    gap = world.reward[..., :, None] - world.reward[..., None, :]
    label = lists.of(gap.sigmoid().mean(-1)).logps
    fixed = lists.of(world.reference)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return lipo(lists.of(world.logps(theta)), fixed, label=label, variant=variant, beta=0.5)

    plain = partial(dpo, beta=0.5)
    policies = {
        "lipo": descend(loss, world.start),
        "dpo best and worst": train_pairs(world, lists.pairs(0, 3), plain),
        "dpo best two": train_pairs(world, lists.pairs(0, 1), plain),
    }
    unseen = sample_pairs(world, 400, seed=50)
    order = {name: unseen.accuracy(world.logratios(theta)) for name, theta in policies.items()}
    report(f"lipo {variant}: share of unseen pairs in order", **order)
    values = {name: world.value(theta) for name, theta in policies.items()}
    report(f"lipo {variant}: expected reward", **values)
    assert (order["lipo"] > order["dpo best and worst"]).all()
    assert order["lipo"].mean() > order["dpo best two"].mean() + 0.02


def test_pro_learns_more_from_a_ranking_than_from_its_two_ends() -> None:
    """PRO on lists of four orders unseen pairs better than PRO on the best and worst of each."""
    world = linear_world()
    unseen = sample_pairs(world, 400, seed=50)

    def learn(lists: Lists) -> torch.Tensor:
        reward = lists.of(world.reward).logps
        theta = descend(lambda each: pro(lists.of(world.logps(each)), reward=reward), world.start)
        return unseen.accuracy(world.logratios(theta))

    lists = sample_lists(world)
    whole, ends = learn(lists), learn(lists.at(0, 3))
    plain = train_pairs(world, lists.pairs(0, 3), dpo)
    figures = {"pro of four": whole, "pro of two": ends}
    figures["dpo"] = unseen.accuracy(world.logratios(plain))
    report("pro: share of unseen pairs in order", **figures)
    assert (whole > ends).all()


@dataclass(frozen=True)
class Paths:
    """Four paths of three steps for each of 20 trees; each step is a response of the table."""

    step: torch.Tensor
    response: torch.Tensor

    def of(self, table: torch.Tensor) -> torch.Tensor:
        """Look the steps up: by seed, tree, path, step."""
        return table[EACH_SEED[..., None, None], self.step, self.response]


def sample_paths(world: World) -> Paths:
    first = 3 * sample_prompts(10, N_LISTS, world.reference.shape[1] // 3)
    step = (first[..., None] + torch.arange(3))[:, :, None].expand(-1, -1, 4, -1)
    return Paths(step, sample(world.reference[EACH_SEED[..., None, None], step], 12))


def test_tree_tpo_orders_steps_better_than_dpo_on_the_ends_of_the_tree() -> None:
    """Four ranked paths of three steps: Tree TPO orders unseen steps better than DPO on two paths.

    Uniform weights of the steps, printed beside, do better still than the similarity to the best
    path: what shows is the worth of all paths, not that of the weights. These cannot help here,
    where the reward of a path is a plain sum over its steps and any weighting departs from it; a
    run chooses with `step_weights`.
    """
    world = linear_world(n_prompts=9)
    paths = sample_paths(world)
    reward, hidden = paths.of(world.reward).sum(-1), paths.of(world.features)
    best, worst = reward.argmax(-1), reward.argmin(-1)
    of_best = hidden[EACH_SEED, torch.arange(N_LISTS), best][:, :, None]
    similar = 1 + torch.cosine_similarity(hidden, of_best, dim=-1).reshape(-1, 3)
    label = ((reward - reward.mean()) / reward.std()).sigmoid().flatten()
    group = torch.arange(len(SEEDS) * N_LISTS).repeat_interleave(4)
    fixed = paths.of(world.reference).reshape(-1, 3)

    def tree_loss(theta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        policy = ListSteps(paths.of(world.logps(theta)).reshape(-1, 3), group)
        return tree_tpo(policy, ListSteps(fixed, group), label=label, step_weight=weight)

    chosen, rejected = (4 * torch.arange(best.numel()) + x.flatten() for x in (best, worst))

    def pair_loss(theta: torch.Tensor) -> torch.Tensor:
        sums = (paths.of(world.logps(theta)).sum(-1).flatten(), fixed.sum(-1))
        return dpo(*(PairLogps(each[chosen], each[rejected]) for each in sums), beta=0.5)

    policies = {
        "tree_tpo": descend(partial(tree_loss, weight=similar), world.start),
        "tree_tpo uniform": descend(partial(tree_loss, weight=similar * 0 + 1), world.start),
        "dpo": descend(pair_loss, world.start),
    }
    unseen = sample_pairs(world, 400, seed=50)
    order = {name: unseen.accuracy(world.logratios(theta)) for name, theta in policies.items()}
    report("tree_tpo: share of unseen steps in order", **order)
    report("tree_tpo: expected reward", **{k: world.value(x) for k, x in policies.items()})
    assert (order["tree_tpo"] > order["dpo"]).all()
