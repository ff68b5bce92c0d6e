"""What rationales, degrees and a slow companion teach, and where plain DPO differs."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from trillium.objectives.batch import PairLogps
from trillium.objectives.companions import rationale_dpo
from trillium.objectives.embeddings import spo_degree
from trillium.objectives.iterations import ofs_dpo
from trillium.objectives.pairwise import dpo

from .tabular import (
    EACH_SEED,
    SEEDS,
    Pairs,
    World,
    descend,
    linear_world,
    normal,
    per_seed,
    report,
    sample_pairs,
    train_pairs,
    uniform,
)


def test_a_rationale_teaches_more_than_the_verdict_alone() -> None:
    """Thirty pairs, 24 features: naming the feature that decided orders unseen pairs better.

    A rationale is one of 24 words, one per feature; the policy finds it as likely as the feature
    speaks for the chosen response under its own parameters.
    """
    world = linear_world(n_features=24)
    pairs, unseen = sample_pairs(world, 30), sample_pairs(world, 400, seed=50)
    taste = normal(3, 24)
    assert world.features is not None
    chosen, rejected = (
        world.features[EACH_SEED, pairs.prompt, side] for side in (pairs.chosen, pairs.rejected)
    )
    reason = ((chosen - rejected) * taste[:, None]).argmax(-1)
    fixed = pairs.of(world.reference)

    def loss(theta: Tensor) -> Tensor:
        words = ((chosen - rejected) * theta[:, None]).log_softmax(-1)
        rationale = words.gather(-1, reason[..., None]).flatten()
        return rationale_dpo(pairs.of(world.logps(theta)), fixed, rationale=rationale)

    policies = {
        "rationale_dpo": descend(loss, world.start),
        "dpo": train_pairs(world, pairs, dpo),
    }
    order = {name: unseen.accuracy(world.logratios(x)) for name, x in policies.items()}
    report("rationale_dpo: share of unseen pairs in order", **order)
    assert (order["rationale_dpo"] > order["dpo"]).all()
    assert order["rationale_dpo"].mean() > order["dpo"].mean() + 0.03


def test_degrees_of_degradation_stay_readable_in_the_hidden_state() -> None:
    """A state of two numbers is learned from twelve: DPO keeps what ranks, SPO the degree too.

    Every rejected response lost 0, 1 or 2 phrases, which shows along a direction of its own in its
    twelve features. On unseen responses a fresh head reads the degree off the learned state.
    """
    n, lost = 120, normal(41, 12)
    lost = 2 * lost / lost.norm(dim=-1, keepdim=True)

    def rows(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        degree = (uniform(seed, n) * 3).long()
        good = normal(43, 12)[:, None] + normal(seed + 1, n, 12)
        bad = normal(seed + 2, n, 12) + degree[..., None] * lost[:, None]
        return good, bad, degree

    good, bad, degree = rows(50)
    zero = PairLogps(*(torch.zeros(len(SEEDS) * n, dtype=good.dtype) for _ in range(2)))

    def read(parameters: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability, the state's first number, and the logits of the degrees."""
        encoder, head, bias = parameters.split([24, 6, 3], dim=-1)
        state = torch.einsum("snx,sxh->snh", x, encoder.reshape(-1, 12, 2))
        logits = torch.einsum("snh,shd->snd", state, head.reshape(-1, 2, 3)) + bias[:, None]
        return state[..., 0].flatten(), logits.flatten(0, 1)

    def pair(parameters: Tensor) -> PairLogps:
        return PairLogps(read(parameters, good)[0], read(parameters, bad)[0])

    start = 0.1 * normal(60, 33)
    ours = descend(
        lambda p: spo_degree(
            pair(p), zero, degree_logits=read(p, bad)[1], degree_label=degree.flatten(), gamma=1.0
        ),
        start,
    )
    plain = descend(lambda p: dpo(pair(p), zero), start)
    _, unseen, answer = rows(70)

    def probe(parameters: Tensor) -> Tensor:
        """Fit a fresh head on the frozen state; return the share of unseen degrees it reads."""
        encoder = parameters[:, :24]

        def logits(head: Tensor, x: Tensor) -> Tensor:
            return read(torch.cat([encoder, head], -1), x)[1]

        head = descend(
            lambda h: cross_entropy(logits(h, bad), degree.flatten(), reduction="none"),
            torch.zeros(len(SEEDS), 9, dtype=parameters.dtype),
        )
        return per_seed(logits(head, unseen).argmax(-1) == answer.flatten())

    found, dpo_found = probe(ours), probe(plain)
    report("spo_degree: share of unseen degrees read", spo_degree=found, dpo=dpo_found)
    assert (found > dpo_found).all()
    assert found.mean() > dpo_found.mean() + 0.1


def test_a_slow_companion_remembers_what_one_adapter_forgets() -> None:
    """Two domains in turn: the slow adapter still orders the old one, the fast one the new.

    Without the chase (alpha = 0) the fast adapter is DPO by itself. The price: neither adapter
    serves both domains alone.
    """
    old = linear_world()
    taste = torch.einsum("sprf,sf->spr", old.features, normal(70, 6))
    new = World(old.reference, taste, old.features)

    def play(alpha: float) -> Tensor:
        both = old.start[:, None].repeat(1, 2, 1)
        for world, pairs in ((old, sample_pairs(old, 60)), (new, sample_pairs(new, 60, seed=80))):

            def loss(both: Tensor, world: World = world, pairs: Pairs = pairs) -> Tensor:
                fast, slow = (pairs.of(world.logps(theta)) for theta in halves(both))
                return ofs_dpo(fast, slow, pairs.of(world.reference), beta=0.5, alpha=alpha)

            both = descend(loss, both)
        return both

    def halves(both: Tensor) -> tuple[Tensor, Tensor]:
        """Return fast and slow; the slow adapter takes a fifth of each step."""
        return both[:, 0], 0.2 * both[:, 1]

    fast, slow = halves(play(alpha=0.1))
    policies = {"fast": fast, "slow": slow, "dpo": play(alpha=0.0)[:, 0]}
    tests = {
        "old": (old, sample_pairs(old, 400, seed=100)),
        "new": (new, sample_pairs(new, 400, seed=105)),
    }
    order = {
        (domain, name): unseen.accuracy(world.logratios(theta))
        for domain, (world, unseen) in tests.items()
        for name, theta in policies.items()
    }
    for domain in tests:
        figures = {name: order[domain, name] for name in policies}
        report(f"ofs_dpo: share of unseen pairs in order, {domain} domain", **figures)
    assert order["old", "slow"].mean() > order["old", "dpo"].mean() + 0.05
    assert order["new", "fast"].mean() > order["new", "dpo"].mean() - 0.02
