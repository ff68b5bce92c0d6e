"""Tiny exact problems for tests of meaning: choices from a table, and chains of tokens.

Five seeds learn side by side: every tensor has them as its first axis, and since no parameter and
no step of Adam is shared, each learns as it would alone. What a test asserts (expected reward,
divergence, length) is computed exactly from the policy, not sampled. Parameters of zero are the
reference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from trillium.objectives.batch import PairLogps, PairTokens
from trillium.objectives.numerics import token_kl

SEEDS = (0, 1, 2, 3, 4)
EACH_SEED = torch.arange(len(SEEDS))[:, None]
END = 0
F64 = torch.float64

PairObjective = Callable[[PairLogps, PairLogps], Tensor]


def draw(seed: int, sample: Callable[[torch.Generator], Tensor]) -> Tensor:
    """Sample once per seed; `seed` tells the uses of one test apart."""
    generators = [torch.Generator().manual_seed(100 * seed + each) for each in SEEDS]
    return torch.stack([sample(generator) for generator in generators])


def normal(seed: int, *size: int) -> Tensor:
    return draw(seed, lambda generator: torch.randn(*size, generator=generator, dtype=F64))


def uniform(seed: int, *size: int) -> Tensor:
    return draw(seed, lambda generator: torch.rand(*size, generator=generator, dtype=F64))


def sample(logits: Tensor, seed: int) -> Tensor:
    """Draw from the softmax over the last axis; the first axis of `logits` is the seed."""
    # The largest of logits + Gumbel noise is such a draw.
    return (logits - (-uniform(seed, *logits.shape[1:]).log()).log()).argmax(-1)


def sample_prompts(seed: int, n: int, n_prompts: int) -> Tensor:
    return (uniform(seed, n) * n_prompts).long()


def per_seed(values: Tensor) -> Tensor:
    """Return the mean for each seed of values that lie one seed after another."""
    return values.reshape(len(SEEDS), -1).double().mean(-1)


def descend(
    loss: Callable[[Tensor], Tensor], start: Tensor, *, n_steps: int = 200, rate: float = 0.05
) -> Tensor:
    """Minimise the sum with Adam, whose steps ignore the scale of a loss: one fair budget."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameters], lr=rate, foreach=False)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss(parameters).sum().backward()
        optimizer.step()
    return parameters.detach()


def report(claim: str, **figures: Tensor) -> None:
    """Print one line per quantity, one figure per seed."""
    print(f"\n{claim}")
    for name, values in figures.items():
        numbers = " ".join(f"{value:8.3f}" for value in values.tolist())
        print(f"    {name:<34} mean {values.mean():8.3f}   seeds {numbers}")


@dataclass(frozen=True)
class World:
    """A few prompts with a dozen responses each, what is truly good, and the reference.

    Tensors are by seed, prompt, response. With features (one more axis) the prompts share
    parameters, so learning about some responses moves others; without, each response has its own.
    """

    reference: Tensor
    reward: Tensor
    features: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """Return the parameters of the reference."""
        if self.features is None:
            return torch.zeros_like(self.reference)
        return self.reference.new_zeros(len(SEEDS), self.features.shape[-1])

    def logps(self, theta: Tensor) -> Tensor:
        if self.features is not None:
            theta = torch.einsum("sprf,sf->spr", self.features, theta)
        return (self.reference + theta).log_softmax(-1)

    def value(self, theta: Tensor) -> Tensor:
        """Return the expected reward of the policy."""
        return per_seed((self.logps(theta).exp() * self.reward).sum(-1))

    def divergence(self, theta: Tensor) -> Tensor:
        """Return D(policy || reference), the mean over prompts."""
        return per_seed(token_kl(self.logps(theta), self.reference))

    def logratios(self, theta: Tensor) -> Tensor:
        return self.logps(theta) - self.reference

    def optimum(self, beta: float) -> Tensor:
        """Return the log-probabilities that maximise reward - beta * divergence."""
        return (self.reference + self.reward / beta).log_softmax(-1)


def table_world(n_prompts: int = 4, n_responses: int = 12) -> World:
    reference = normal(1, n_prompts, n_responses).log_softmax(-1)
    return World(reference, normal(2, n_prompts, n_responses))


def linear_world(n_prompts: int = 8, n_responses: int = 12, n_features: int = 6) -> World:
    reference = normal(1, n_prompts, n_responses).log_softmax(-1)
    features = normal(2, n_prompts, n_responses, n_features)
    reward = torch.einsum("sprf,sf->spr", features, normal(3, n_features))
    return World(reference, reward, features)


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the total variation between two policies by their log-probabilities."""
    return per_seed((first.exp() - second.exp()).abs().sum(-1) / 2)


def look_up(table: Tensor, prompt: Tensor, response: Tensor) -> Tensor:
    """Return table[seed, prompt, response], one seed after another."""
    return table[EACH_SEED, prompt, response].flatten()


@dataclass(frozen=True)
class Pairs:
    """Preferences by index; tensors are by seed and pair."""

    prompt: Tensor
    chosen: Tensor
    rejected: Tensor

    def of(self, table: Tensor) -> PairLogps:
        """Look the pairs up; a response counts as one token."""
        ones = torch.ones_like(self.prompt).flatten()
        chosen, rejected = (look_up(table, self.prompt, s) for s in (self.chosen, self.rejected))
        return PairLogps(chosen, rejected, ones, ones)

    def flipped(self, is_flipped: Tensor) -> "Pairs":
        is_flipped = is_flipped.reshape(self.prompt.shape)
        return Pairs(
            self.prompt,
            torch.where(is_flipped, self.rejected, self.chosen),
            torch.where(is_flipped, self.chosen, self.rejected),
        )

    def accuracy(self, table: Tensor) -> Tensor:
        """Return how often the chosen response has the larger entry."""
        pair = self.of(table)
        return per_seed(pair.chosen > pair.rejected)


def sample_pairs(
    world: World,
    n_pairs: int,
    *,
    seed: int = 10,
    is_noisy: bool = False,
    weights: Tensor | None = None,
) -> Pairs:
    """Draw two responses to random prompts; label by reward, or if noisy by Bradley-Terry odds.

    Responses come from the reference, or as `weights` say.
    """
    weights = world.reference.exp() if weights is None else weights
    n_prompts = weights.shape[1]
    prompt = sample_prompts(seed, n_pairs, n_prompts)
    rows = weights[EACH_SEED, prompt]
    # The two largest of weight * exponential noise are a draw without replacement.
    noise = -uniform(seed + 1, n_pairs, weights.shape[2]).log()
    first, second = (rows / noise).topk(2).indices.unbind(-1)
    pairs = Pairs(prompt, first, second)
    reward = pairs.of(world.reward)
    gap = reward.chosen - reward.rejected
    threshold = uniform(seed + 2, n_pairs).flatten() if is_noisy else torch.full_like(gap, 0.5)
    return pairs.flipped(gap.sigmoid() < threshold)


def train_pairs(
    world: World, pairs: Pairs, objective: PairObjective, *, n_steps: int = 200
) -> Tensor:
    reference = pairs.of(world.reference)
    return descend(
        lambda theta: objective(pairs.of(world.logps(theta)), reference),
        world.start,
        n_steps=n_steps,
    )


@dataclass(frozen=True)
class Chains:
    """Sequences by context and token, by seed, row and position; none is scored after its end."""

    context: Tensor
    token: Tensor
    scored: Tensor

    @property
    def lengths(self) -> Tensor:
        return self.scored.sum(-1).flatten()

    def look_up(self, table: Tensor) -> Tensor:
        """Return table[seed, context, token] of each position, rows of all seeds stacked."""
        entries = table[EACH_SEED[..., None], self.context, self.token]
        return torch.where(self.scored, entries, 0.0).flatten(0, 1)

    def token_logps(self, table: Tensor) -> Tensor:
        return self.look_up(table.log_softmax(-1))

    def token_kl(self, reference: Tensor, table: Tensor) -> Tensor:
        """Return D(reference || policy) at each scored position."""
        kl = token_kl(reference, table)[..., None].expand_as(table)
        return self.look_up(kl)

    def take(self, rows: Tensor) -> "Chains":
        """Select rows, by seed."""
        return Chains(*(x[EACH_SEED, rows] for x in (self.context, self.token, self.scored)))


def sample_chains(table: Tensor, n_chains: int, n_tokens: int, *, seed: int = 20) -> Chains:
    """Draw sequences in which each token depends on the one before; `END` ends one.

    Row -1 of the table is the context of the first token.
    """
    context = torch.full((len(SEEDS), n_chains), table.shape[1] - 1)
    is_open = torch.ones_like(context, dtype=torch.bool)
    columns = []
    for position in range(n_tokens):
        token = sample(table[EACH_SEED, context], seed + position)
        columns.append((context, token, is_open))
        is_open, context = is_open & (token != END), token
    return Chains(*(torch.stack(column, -1) for column in zip(*columns, strict=True)))


def occupancy(table: Tensor, n_tokens: int) -> Tensor:
    """Return how often each token is expected, by seed and token, within the first `n_tokens`."""
    probabilities = table.softmax(-1)
    mass = probabilities[:, -1]
    total = mass.clone()
    for _ in range(n_tokens - 1):
        mass = torch.einsum("sc,sct->st", mass[:, 1:], probabilities[:, 1 : mass.shape[1]])
        total += mass
    return total


@dataclass(frozen=True)
class ChainPairs:
    """Preferences between sequences."""

    chosen: Chains
    rejected: Chains

    def logps(self, table: Tensor) -> PairLogps:
        tokens = self.token_logps(table)
        return PairLogps(
            tokens.chosen.sum(-1),
            tokens.rejected.sum(-1),
            self.chosen.lengths,
            self.rejected.lengths,
        )

    def token_logps(self, table: Tensor) -> PairTokens:
        return PairTokens(self.chosen.token_logps(table), self.rejected.token_logps(table))

    def token_kl(self, reference: Tensor, table: Tensor) -> PairTokens:
        return PairTokens(
            self.chosen.token_kl(reference, table), self.rejected.token_kl(reference, table)
        )


def prefer(chains: Chains, score: Tensor) -> ChainPairs:
    """Pair rows 0 and 1, 2 and 3, ...; the one with the higher score (by seed, row) is chosen."""
    first = torch.arange(0, score.shape[1], 2)
    is_first = score[:, first] >= score[:, first + 1]
    winner = torch.where(is_first, first, first + 1)
    return ChainPairs(chains.take(winner), chains.take(2 * first + 1 - winner))


def train_chains(reference: Tensor, pairs: ChainPairs, objective: PairObjective) -> Tensor:
    fixed = pairs.logps(reference)
    return descend(lambda table: objective(pairs.logps(table), fixed), reference)
