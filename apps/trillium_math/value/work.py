"""What a stage of rollouts does with a chunk of problems, by the way it searches."""

from collections.abc import Callable

from trillium.generation import SamplingConfig

from trillium_math.agent.rollout import Roller
from trillium_math.agent.stage import Work, sample_work
from trillium_math.models import Models, Weights
from trillium_math.value.config import BeamSearch, BestOfKSearch, SampleSearch, SearchConfig
from trillium_math.value.critic import Critic, check_head
from trillium_math.value.guided import beam_search, best_of_k


def open_search(
    search: SearchConfig, models: Models, weights: Weights, sampling: SamplingConfig
) -> Callable[[Roller], Work]:
    """Return what opens the search with the policy, and its value function where it has one.

    Raises ConfigError when the search reads values and the weights have no value function.
    """
    if isinstance(search, SampleSearch):
        return sample_work(lambda: models.generator(weights), sampling)
    check_head(weights.folder)

    def open_work(roller: Roller) -> Work:
        assert weights.folder is not None
        generator = models.generator(weights)
        critic = Critic(models.place(weights), weights.folder)
        if isinstance(search, BestOfKSearch):
            return lambda problems, seed: best_of_k(
                problems, roller, critic.values, generator, sampling, seed=seed
            )
        assert isinstance(search, BeamSearch)
        return lambda problems, seed: beam_search(
            problems, roller, critic.values, generator, sampling, search, seed=seed
        )

    return open_work


def rows_per_problem(search: SearchConfig, sampling: SamplingConfig) -> int:
    """Return how many trajectories of a problem are written at once."""
    if isinstance(search, BeamSearch):
        return search.n_beams * search.n_proposals
    return sampling.n_samples
