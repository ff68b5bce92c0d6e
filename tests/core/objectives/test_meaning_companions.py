"""What the objectives with further sequences are for, and where plain DPO differs."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trillium.objectives.batch import PairLogps, SideStream
from trillium.objectives.companions import c3po, dove, srpo
from trillium.objectives.numerics import token_kl
from trillium.objectives.pairwise import dpo

from .tabular import (
    EACH_SEED,
    F64,
    SEEDS,
    World,
    descend,
    linear_world,
    look_up,
    normal,
    per_seed,
    report,
    sample,
    sample_pairs,
    sample_prompts,
    table_world,
    train_pairs,
    uniform,
)


def test_c3po_leaves_other_prompts_as_they_were() -> None:
    """Feedback on half of the prompts: DPO changes the other half as much, C3PO far less.

    The price is order in scope, which is printed beside it.
    """
    world = linear_world(n_features=24)
    pairs = sample_pairs(World(world.reference[:, :4], world.reward[:, :4]), 40)
    streams = []
    for first, seed in ((4, 60), (6, 70)):
        prompt = first + sample_prompts(seed, 32, 2)
        target = sample(world.reference[EACH_SEED, prompt], seed + 1)
        streams.append((prompt, target))
    fixed = pairs.of(world.reference)

    def loss(theta: Tensor) -> Tensor:
        near, far = (
            SideStream(
                look_up(world.logps(theta), prompt, target), torch.ones(target.numel()).long()
            )
            for prompt, target in streams
        )
        return c3po(pairs.of(world.logps(theta)), fixed, near_scope=near, out_of_scope=far)

    ours, plain = descend(loss, world.start), train_pairs(world, pairs, dpo)
    change, dpo_change = (
        per_seed(token_kl(world.logps(x), world.reference)[:, 4:]) for x in (ours, plain)
    )
    order, dpo_order = (pairs.accuracy(world.logratios(each)) for each in (ours, plain))
    report("c3po: divergence out of scope in nats", c3po=change, dpo=dpo_change)
    report("c3po: share of pairs in order in scope", c3po=order, dpo=dpo_order)
    assert (change < dpo_change / 3).all()
    assert (order > 0.7).all()


Rows = list[Tensor]


def judge_across_prompts(world: World, seed: int) -> tuple[Rows, Rows]:
    """Return prompts and responses of the winners, and of the losers, of 1500 comparisons."""
    prompt, response = (uniform(seed, 2, 1500) * 4).long(), (uniform(seed + 1, 2, 1500) * 12).long()
    reward = world.reward[EACH_SEED[..., None], prompt, response]
    is_first = uniform(seed + 2, 1500) < (reward[:, 0] - reward[:, 1]).sigmoid()
    winner = (~is_first).long()[:, None]
    return tuple(
        [side.gather(1, pick)[:, 0] for side in (prompt, response)] for pick in (winner, 1 - winner)
    )


def look_up_both(tables: list[Tensor], rows: tuple[Rows, Rows]) -> list[PairLogps]:
    """Return the pair of responses and the pair of prompts, each from its own table."""
    responses = (look_up(tables[0], *side) for side in rows)
    prompts = (look_up(tables[1], torch.zeros_like(side[0]), side[0]) for side in rows)
    return [PairLogps(*responses), PairLogps(*prompts)]


def test_dove_learns_what_depends_on_the_prompt_itself() -> None:
    """Preferences across prompts: only DOVE can say that one prompt is better than another.

    A policy of responses alone has no parameter for that; log-loss and order on unseen pairs.
    """
    base = table_world()
    world = World(base.reference, base.reward + 2 * normal(5, 4, 1))
    of_prompts = torch.full((len(SEEDS), 1, 4), 0.25, dtype=F64).log()

    def models(theta: Tensor) -> list[Tensor]:
        responses, prompts = theta.split([48, 4], dim=-1)
        return [
            (world.reference + responses.reshape(-1, 4, 12)).log_softmax(-1),
            (of_prompts + prompts[:, None]).log_softmax(-1),
        ]

    seen, unseen = judge_across_prompts(world, 60), judge_across_prompts(world, 70)
    fixed, fixed_prompts = look_up_both([world.reference, of_prompts], seen)

    def joint(theta: Tensor) -> Tensor:
        policy, prompts = look_up_both(models(theta), seen)
        return dove(policy, fixed, policy_prompt=prompts, reference_prompt=fixed_prompts, beta=1.0)

    def alone(theta: Tensor) -> Tensor:
        return dpo(look_up_both(models(theta), seen)[0], fixed, beta=1.0)

    errors, order = {}, {}
    for name, loss in (("dove", joint), ("dpo", alone)):
        tables = models(descend(loss, torch.zeros(len(SEEDS), 52, dtype=F64)))
        moved = look_up_both([tables[0] - world.reference, tables[1] - of_prompts], unseen)
        z = sum(each.chosen - each.rejected for each in moved)
        errors[name], order[name] = per_seed(-logsigmoid(z)), per_seed(z > 0)
    report("dove: log-loss on unseen pairs in nats", **errors)
    report("dove: share of unseen pairs in order", **order)
    assert (errors["dove"] < errors["dpo"]).all()
    assert (order["dove"] > order["dpo"]).all()


@dataclass(frozen=True)
class Cycle:
    """Six responses to one prompt that beat each other in a circle, and every ordered pair."""

    reference: Tensor
    p_wins: Tensor
    first: Tensor
    second: Tensor

    def pair(self, logratios: Tensor, row: Tensor) -> PairLogps:
        """Look every pair up in rows of log-ratios."""
        return PairLogps(*(logratios[:, row, x].flatten() for x in (self.first, self.second)))

    def logratios(self, theta: Tensor) -> Tensor:
        """Return those of the generator (row 0) and of the reviser of response k (row 1 + k)."""
        reference = self.reference[:, None]
        return (theta + reference).log_softmax(-1) - reference

    def robust(self, theta: Tensor) -> Tensor:
        generator = torch.zeros_like(self.first)
        direct, given_first, given_second = (
            self.pair(self.logratios(theta), row)
            for row in (generator, 1 + self.first, 1 + self.second)
        )
        return srpo(
            direct,
            given_chosen=given_first,
            given_rejected=given_second,
            p_win=self.p_wins.flatten(),
            beta=0.3,
        )

    def plain(self, theta: Tensor) -> Tensor:
        policy = self.pair(self.logratios(theta), torch.zeros_like(self.first))
        zero = torch.zeros_like(policy.chosen)
        return self.p_wins.flatten() * dpo(policy, PairLogps(zero, zero), beta=0.3)


def cycle_of_six() -> Cycle:
    first, second = (~torch.eye(6, dtype=torch.bool)).nonzero().unbind(1)
    angle = 2 * torch.pi * (torch.arange(6) + 0.5 * uniform(7, 6)) / 6
    p_wins = (2 * (angle[:, second] - angle[:, first]).sin()).sigmoid()
    return Cycle(normal(8, 6).log_softmax(-1), p_wins, first, second)


def test_srpo_does_not_depend_on_who_wrote_the_responses() -> None:
    """The same intransitive preferences seen through two behaviours: SRPO ends at one policy.

    DPO fits the pairs that are frequent, so its two policies differ. Losses are weighted by the
    behaviour's probability of a pair and DPO by that of its label: nothing is sampled.
    """
    cycle, start = cycle_of_six(), torch.zeros(len(SEEDS), 7, 6, dtype=F64)
    apart = {}
    for name, loss in (("srpo", cycle.robust), ("dpo", cycle.plain)):
        policies = []
        for seed in (30, 31):
            behaviour = (2 * normal(seed, 6)).softmax(-1)
            weight = (behaviour[:, cycle.first] * behaviour[:, cycle.second]).flatten()
            theta = descend(lambda x, f=loss, w=weight: w * f(x), start, n_steps=1000)
            policies.append((theta[:, 0] + cycle.reference).softmax(-1))
        apart[name] = (policies[0] - policies[1]).abs().sum(-1) / 2
    report("srpo: total variation between the policies of two behaviours", **apart)
    assert (apart["srpo"] < 0.05).all()
    assert (apart["dpo"] > 0.1).all()
