"""Self-play: samples of the policy are judged against each other, and it learns how much they win.

SPPO regresses log-ratios to win probabilities, GPO to general preference scores. In both the
reference of a round is the policy that it starts from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trillium.errors import DataError
from trillium.generation.interface import Completion, SamplingConfig
from trillium.objectives.configs import GPOConfig, SPPOConfig
from trillium.training.recipes.recipe import Recipe, Sampled
from trillium.training.round_rows import Candidates, Prompt
from trillium.trees import TokenTree

Compare = Callable[[Prompt, Completion, Completion], float]
_SPPO = SPPOConfig()
_GPO = GPOConfig()


@dataclass(frozen=True)
class WinProbability:
    """Score a completion by the probability that it beats a sample of the policy.

        p_i = mean over all samples j of P(i beats j)          P(i beats i) = 1/2

    `compare` gives P(first beats second). It is asked in both orders and the answers are averaged,
    so that a judge who favours a place favours nobody.
    """

    identity: str
    compare: Compare

    def score(self, prompt: Prompt, completions: Sequence[Completion]) -> list[float]:
        """Return p of each completion; raises DataError for what is no probability."""

        def centred(first: Completion, second: Completion) -> float:
            found = float(self.compare(prompt, first, second))
            if not 0 <= found <= 1:
                raise DataError(
                    f"judge {self.identity}: gave {found} for prompt {prompt.id} (needs a "
                    "probability, 0 to 1); correct the judge, or use gpo for preference scores"
                )
            return found - 0.5

        return [0.5 + mean for mean in _mean_preferences(completions, centred)]


@dataclass(frozen=True)
class PreferenceScore:
    """Score a completion by its mean preference score over the samples of the policy.

        s_i = mean over all samples j of s(i over j)           s(i over i) = 0

    `compare` gives s(first over second), any finite number, above 0 when the first is better. It
    may hold cycles. It is asked in both orders and the answers are averaged.
    """

    identity: str
    compare: Compare

    def score(self, prompt: Prompt, completions: Sequence[Completion]) -> list[float]:
        """Return s of each completion."""
        return _mean_preferences(
            completions, lambda first, second: float(self.compare(prompt, first, second))
        )


@dataclass(frozen=True)
class BestAgainstWorst:
    """Pair the completion with the highest score and the one with the lowest.

    Both scores travel with the pair, as the columns COLUMN_chosen and COLUMN_rejected. A prompt
    whose completions all score alike gives no pair: its targets are where the policy already is.
    """

    column: str

    @property
    def identity(self) -> str:
        """Name the rule and its column."""
        return f"best against worst, {self.column}"

    def select(self, candidates: Candidates, *, seed: int) -> list[TokenTree]:
        """Return one pair, or none; there is nothing to draw."""
        scores = candidates.scores
        best, worst = scores.index(max(scores)), scores.index(min(scores))
        if scores[best] == scores[worst]:
            return []
        columns = {
            f"{self.column}_chosen": scores[best],
            f"{self.column}_rejected": scores[worst],
        }
        return [candidates.pair(best, worst, columns)]


def sppo(
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    judge: WinProbability,
    *,
    n_rounds: int = 3,
    objective: SPPOConfig = _SPPO,
) -> Recipe:
    """Return self-play preference optimisation (arXiv 2405.00675, Alg. 1).

    The paper draws K = 5 samples per prompt (`sampling.n_samples`) and trains three rounds.
    """
    source = Sampled(tuple(prompts), sampling, judge, BestAgainstWorst("p_win"))
    return Recipe("sppo", n_rounds, source, objective)


def gpo(
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    judge: PreferenceScore,
    *,
    n_rounds: int = 3,
    objective: GPOConfig = _GPO,
) -> Recipe:
    """Return general preference optimisation (arXiv 2410.02197)."""
    source = Sampled(tuple(prompts), sampling, judge, BestAgainstWorst("score"))
    return Recipe("gpo", n_rounds, source, objective)


def _mean_preferences(
    completions: Sequence[Completion], compare: Callable[[Completion, Completion], float]
) -> list[float]:
    """Return the mean of each completion's antisymmetric preferences, itself counted as 0."""
    totals = [0.0] * len(completions)
    for i, first in enumerate(completions):
        for j in range(i):
            preference = (compare(first, completions[j]) - compare(completions[j], first)) / 2
            totals[i] += preference
            totals[j] -= preference
    return [total / len(completions) for total in totals]
