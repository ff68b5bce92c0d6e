"""RSO: rejection sampling moves candidates towards the optimal policy before pairs are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.generation.interface import Completion, SamplingConfig
from trillium.objectives.configs import DPOConfig, HingeConfig
from trillium.objectives.iterations import rso
from trillium.objectives.recipe_configs import RSOConfig
from trillium.training.recipes.recipe import Recipe, Sampled
from trillium.training.round_rows import Candidates, Prompt
from trillium.trees import TokenTree

_RSO = RSOConfig()
_HINGE = HingeConfig()


@dataclass(frozen=True)
class Reward:
    """Score a completion by itself."""

    identity: str
    reward: Callable[[Prompt, Completion], float]

    def score(self, prompt: Prompt, completions: Sequence[Completion]) -> list[float]:
        """Return the reward of each completion."""
        return [float(self.reward(prompt, completion)) for completion in completions]


@dataclass(frozen=True)
class RejectionSampling:
    """Keep candidates as samples of policy * exp(reward / beta), then pair and rank them.

    `first_round` pairs the kept ones two by two; in a `tournament` the winners meet again, until
    one is left. The reward ranks; two of equal reward make no pair, and the first goes on.
    Candidates are told apart by index, so that a text drawn twice counts twice.
    """

    config: RSOConfig
    pairing: Literal["first_round", "tournament"]

    @property
    def identity(self) -> str:
        """Name the rule and its settings."""
        return hash_json({**self.config.model_dump(), "pairing": self.pairing})

    def select(self, candidates: Candidates, *, seed: int) -> list[TokenTree]:
        """Return the ranked pairs of what is kept."""
        return [candidates.pair(*pair) for pair in self._match(candidates.scores, seed)]

    def keep(self, rewards: Sequence[float], *, seed: int) -> tuple[int, ...]:
        """Return which candidates are kept, in the order of their acceptance.

        Every pass accepts the best candidate left, so that `n_samples` passes are enough and the
        numbers drawn here suffice.
        """
        n_draws = self.config.n_samples * len(rewards)
        generator = torch.Generator().manual_seed(seed)
        uniforms = torch.rand(n_draws, generator=generator, dtype=torch.float64)
        scores = torch.tensor(rewards, dtype=torch.float64)
        return rso(scores, uniforms, n_samples=self.config.n_samples, beta=self.config.beta)

    def _match(self, rewards: Sequence[float], seed: int) -> list[tuple[int, int]]:
        """Return (winner, loser) of every match that has a winner."""
        players, pairs = list(self.keep(rewards, seed=seed)), []
        while len(players) > 1:
            winners = []
            for first, second in zip(players[0::2], players[1::2], strict=False):
                is_second = rewards[second] > rewards[first]
                winners.append(second if is_second else first)
                if rewards[first] != rewards[second]:
                    pairs.append((second, first) if is_second else (first, second))
            if self.pairing == "first_round":
                break
            # The last of an odd number has no opponent and goes on.
            players = winners + players[len(winners) * 2 :]
        return pairs


def rejection_sampling(
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    reward: Reward,
    *,
    config: RSOConfig = _RSO,
    pairing: Literal["first_round", "tournament"] = "first_round",
    objective: HingeConfig | DPOConfig = _HINGE,
    n_rounds: int = 1,
) -> Recipe:
    """Return RSO, statistical rejection sampling optimisation (arXiv 2309.06657, Alg. 1).

    The paper draws 64 candidates (`sampling.n_samples`), keeps 8, and trains once relative to the
    policy that drew them, with the hinge or the sigmoid at strength 0.05.
    Raises ConfigError when fewer candidates are drawn than are to be kept.
    """
    if config.n_samples > sampling.n_samples:
        raise ConfigError(
            f"rejection_sampling: keeps {config.n_samples} of {sampling.n_samples} candidates (at "
            "most as many as are drawn); raise sampling.n_samples"
        )
    source = Sampled(tuple(prompts), sampling, reward, RejectionSampling(config, pairing))
    return Recipe("rso", n_rounds, source, objective)
