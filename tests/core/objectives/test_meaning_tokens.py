"""What objectives that look at single tokens are for, and where plain DPO differs."""

from dataclasses import dataclass

import torch
from torch import Tensor
from trillium.objectives.batch import PairLogps, PairTokens
from trillium.objectives.numerics import token_kl
from trillium.objectives.pairwise import dpo
from trillium.objectives.tokens import oreo, sparsepo, tdpo
from trillium.policies.masks import LearnedMask

from .tabular import (
    EACH_SEED,
    F64,
    SEEDS,
    ChainPairs,
    Chains,
    descend,
    normal,
    per_seed,
    prefer,
    report,
    sample_chains,
    uniform,
)


def test_tdpo2_holds_the_divergence_on_both_sides() -> None:
    """After the same steps on the same pairs TDPO2 is nearer to the reference than DPO.

    TDPO1 is not: its loss rewards divergence on the chosen side; it is printed, not asserted.
    """
    reference = normal(4, 6, 6)
    quality = normal(5, 1, 6).expand(-1, 6, -1)
    chains = sample_chains(reference, 100, 8)
    pairs = prefer(chains, chains.look_up(quality).sum(-1).reshape(len(SEEDS), -1))
    fixed = pairs.token_logps(reference)

    def token_loss(table: Tensor, variant: str) -> Tensor:
        kl = pairs.token_kl(reference, table)
        return tdpo(pairs.token_logps(table), fixed, kl=kl, variant=variant)

    tables = {
        "dpo": descend(lambda x: dpo(pairs.logps(x), pairs.logps(reference)), reference),
        "tdpo1": descend(lambda x: token_loss(x, "tdpo1"), reference),
        "tdpo2": descend(lambda x: token_loss(x, "tdpo2"), reference),
    }
    chosen, rejected, order = {}, {}, {}
    for name, table in tables.items():
        kl, u = pairs.token_kl(reference, table), pairs.logps(table).against(pairs.logps(reference))
        chosen[name], rejected[name] = per_seed(kl.chosen.sum(-1)), per_seed(kl.rejected.sum(-1))
        order[name] = per_seed(u.chosen > u.rejected)
    report("tdpo: sequence KL of the chosen in nats", **chosen)
    report("tdpo: sequence KL of the rejected in nats", **rejected)
    report("tdpo: share of pairs in order", **order)
    assert (chosen["tdpo2"] < chosen["dpo"]).all()
    assert (rejected["tdpo2"] < rejected["dpo"]).all()
    assert order["tdpo2"].mean() > order["dpo"].mean() - 0.1


@dataclass(frozen=True)
class Pictures:
    """Pairs of sequences, and hidden states that picture each token in two layers, with noise."""

    pairs: ChainPairs
    hidden: tuple[Tensor, Tensor]

    @property
    def sides(self) -> tuple[Chains, Chains]:
        return self.pairs.chosen, self.pairs.rejected

    def masks(self, modules: list[LearnedMask]) -> PairTokens:
        chosen, rejected = (
            torch.cat([m(h, s) for m, h, s in zip(modules, hidden, side.scored, strict=True)])
            for hidden, side in zip(self.hidden, self.sides, strict=True)
        )
        return PairTokens(chosen, rejected)

    def mean_mask(self, mask: PairTokens, tokens: tuple[int, ...]) -> Tensor:
        """Return the mean mask over the scored occurrences of some tokens, by seed."""
        is_meant = [torch.isin(x.token, torch.tensor(tokens)) & x.scored for x in self.sides]
        meant = torch.cat(is_meant, -1).flatten(1)
        values = torch.cat([mask.chosen, mask.rejected], -1).detach().reshape(meant.shape)
        return (values * meant).sum(-1) / meant.sum(-1)


def picture_pairs(reference: Tensor, score: Tensor) -> Pictures:
    chains = sample_chains(reference, 200, 8)
    total = chains.look_up(score.expand(reference.shape)).sum(-1).reshape(len(SEEDS), -1)
    pairs = prefer(chains, total)
    pictures, noise = normal(60, 8, 2, 16), normal(61, 2, 100, 8, 2, 16)
    chosen, rejected = (
        pictures[EACH_SEED[..., None], side.token] + 0.5 * noise[:, index]
        for index, side in enumerate((pairs.chosen, pairs.rejected))
    )
    return Pictures(pairs, (chosen, rejected))


def test_sparsepo_learns_which_tokens_matter() -> None:
    """One good and one bad token decide, five fill: learned masks weigh the two above the rest.

    The masks see hidden states alone, and start at one for every token, which is where DPO stays.
    """
    reference = 0.5 * normal(4, 8, 8)
    score = torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=F64)
    pictured = picture_pairs(reference, score)
    pairs, fixed = pictured.pairs, pictured.pairs.token_logps(reference)
    modules = [LearnedMask(2, 16).double() for _ in SEEDS]
    weights = [parameter for module in modules for parameter in module.parameters()]
    table = reference.clone().requires_grad_()
    groups = [{"params": [table]}, {"params": weights, "weight_decay": 0.01}]
    optimizer = torch.optim.Adam(groups, lr=0.02, foreach=False)
    for _ in range(200):
        optimizer.zero_grad()
        mask, kl = pictured.masks(modules), pairs.token_kl(reference, table)
        policy = pairs.token_logps(table)
        sparsepo(
            policy, fixed, kl=kl, mask_u=mask, mask_d=mask, l1_u=5e-4, l1_d=5e-4
        ).sum().backward()
        optimizer.step()
    learned = pictured.masks(modules)
    decisive, filler = (pictured.mean_mask(learned, x) for x in ((1, 2), (3, 4, 5, 6, 7)))
    report("sparsepo: mean mask (one at the start)", decisive=decisive, filler=filler)
    assert (decisive > 2 * filler).all()


def pair_failures(is_right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of winners and losers: every failure with a success of its seed, in turn."""
    winners, losers = [], []
    for row, right in zip(
        torch.arange(is_right.numel()).reshape(is_right.shape), is_right, strict=True
    ):
        losers.append(row[~right])
        winners.append(row[right].repeat(len(row))[: len(losers[-1])])
    return torch.cat(winners), torch.cat(losers)


def test_oreo_credits_the_step_that_decides() -> None:
    """Six steps, the third decides: OREO moves that one, DPO on whole responses moves them all.

    Both see 24 random responses with a verdict; DPO pairs every failure with a success. OREO's
    values know the step and, once it is decided, the outcome.
    """
    n_choices, decisive = 4, 2
    choice = (uniform(60, 24, 6) * n_choices).long()
    is_right = choice[..., decisive] == 0
    reference = torch.zeros(len(SEEDS), 6, n_choices, dtype=F64).log_softmax(-1)
    step = torch.arange(6)
    state = torch.where(step <= decisive, 0, 1 + is_right[..., None].long())

    def look_up_rows(table: Tensor, index: Tensor) -> Tensor:
        return table[EACH_SEED[..., None], step, index].flatten(0, 1)

    def step_loss(parameters: Tensor) -> Tensor:
        table, values = parameters.split([n_choices, 3], dim=-1)
        logps, fixed = (look_up_rows(x.log_softmax(-1), choice) for x in (table, reference))
        values, reward = look_up_rows(values, state), is_right.double().flatten()
        scored = torch.ones_like(values, dtype=torch.bool)
        held = token_kl(table.log_softmax(-1), reference)[:, None].expand(choice.shape)
        return oreo(
            logps,
            fixed,
            values=values,
            scored=scored,
            reward=reward,
            reverse_kl=held.flatten(0, 1),
            beta=0.1,
        )

    winners, losers = pair_failures(is_right)

    def pair_loss(table: Tensor) -> Tensor:
        sums = [look_up_rows(x.log_softmax(-1), choice).sum(-1) for x in (table, reference)]
        return dpo(*(PairLogps(each[winners], each[losers]) for each in sums), beta=0.1)

    both = descend(step_loss, torch.zeros(len(SEEDS), 6, n_choices + 3, dtype=F64))
    tables = {"oreo": both[..., :n_choices], "dpo": descend(pair_loss, reference)}
    share = {}
    for name, table in tables.items():
        moved = token_kl(table.log_softmax(-1), reference)
        share[name] = moved[:, decisive] / moved.sum(-1)
    report("oreo: share of the divergence at the deciding step", **share)
    assert (share["oreo"] > 0.9).all()
    assert (share["dpo"] < 0.5).all()
