import math

import pytest
import torch
from trillium.errors import ConfigError
from trillium.generation import Completion, SamplingConfig
from trillium.objectives.configs import HingeConfig
from trillium.objectives.recipe_configs import RSOConfig
from trillium.training.config import TrainConfig
from trillium.training.recipes.rejection import RejectionSampling, Reward, rejection_sampling
from trillium.training.round_rows import Candidates, Prompt, read_trees
from trillium.training.round_sampling import read_samples
from trillium.training.rounds import RoundsConfig, run_rounds

SAMPLING = SamplingConfig(n_samples=24, temperature=1.0, top_p=1.0, top_k=6, max_new_tokens=2)


def share_even(prompt: Prompt, completion: Completion) -> float:
    return sum(token % 2 == 0 for token in completion.ids) / len(completion.ids)


def sampler(n_samples: int, beta: float = 0.5, pairing: str = "first_round") -> RejectionSampling:
    return RejectionSampling(RSOConfig(n_samples=n_samples, beta=beta), pairing)


def test_equal_texts_are_distinct_candidates() -> None:
    """All eight of eight are kept, though there are only two texts: nothing is keyed by text."""
    texts = [Completion((4 + place % 2, 2), "", "stop") for place in range(8)]
    rewards = [float(place % 2) for place in range(8)]
    assert sorted(sampler(8).keep(rewards, seed=1)) == list(range(8))
    pairs = sampler(8, pairing="tournament").select(
        Candidates(Prompt("p", (5,)), tuple(texts), tuple(rewards)), seed=1
    )
    assert all(pair.path(0).ids == (5, 5, 2) for pair in pairs)
    assert all(pair.path(1).ids == (5, 4, 2) for pair in pairs)
    assert len({pair.id for pair in pairs}) == len(pairs) > 1


@pytest.mark.parametrize("beta", [1e-6, 0.5, 1e6])
def test_sampling_ends_whatever_the_rewards_are(beta: float) -> None:
    """At a tiny beta each pass accepts one candidate, which is the slowest that it can be."""
    rewards = torch.randn(40, generator=torch.Generator().manual_seed(0)).mul(1e3).tolist()
    kept = sampler(40, beta).keep(rewards, seed=0)
    assert sorted(kept) == list(range(40))
    if beta == 1e-6:
        assert [rewards[index] for index in kept] == sorted(rewards, reverse=True)


def test_kept_candidates_are_distributed_like_the_tilted_policy() -> None:
    """Of three equally likely rewards, shares are proportional to exp(reward / beta)."""
    generator = torch.Generator().manual_seed(5)
    counts = [0, 0, 0]
    for seed in range(100):
        levels = torch.randint(0, 3, (600,), generator=generator).tolist()
        for index in sampler(20).keep([0.5 * level for level in levels], seed=seed):
            counts[levels[index]] += 1
    weights = [math.exp(level) for level in range(3)]
    for count, weight in zip(counts, weights, strict=True):
        # Four standard errors of a share of 2,000 draws.
        assert count / 2000 == pytest.approx(weight / sum(weights), abs=0.045)


def test_first_round_plays_once_and_a_tournament_to_the_end() -> None:
    rewards = tuple(float(place) for place in range(7))
    candidates = Candidates(
        Prompt("p", (5,)),
        tuple(Completion((place + 4,), "", "stop") for place in range(7)),
        rewards,
    )
    first = sampler(7).select(candidates, seed=3)
    cup = sampler(7, pairing="tournament").select(candidates, seed=3)
    assert (len(first), len(cup)) == (3, 6)
    assert [pair.id for pair in cup[:3]] == [pair.id for pair in first]
    # The best candidate wins the final, and every loser loses once.
    assert cup[-1].id.startswith("p/6-")
    assert len({pair.id.rpartition("-")[2] for pair in cup}) == 6


def test_more_cannot_be_kept_than_drawn(prompts) -> None:
    with pytest.raises(ConfigError, match="keeps 30 of 24 candidates"):
        rejection_sampling(
            prompts, SAMPLING, Reward("even", share_even), config=RSOConfig(n_samples=30)
        )


def test_rso_trains_on_better_samples_and_raises_the_reward(prompts, policy, generator, tmp_path):
    """Kept candidates have a higher reward than drawn ones, and so has what the policy writes."""
    model = policy(spread=0.0)
    recipe = rejection_sampling(
        prompts,
        SAMPLING,
        Reward("even", share_even),
        config=RSOConfig(n_samples=8, beta=0.25),
        pairing="tournament",
        objective=HingeConfig(beta=0.5),
        n_rounds=2,
    )
    train = TrainConfig(per_device_train_batch_size=8, learning_rate=1e-2, num_train_epochs=3)
    run_rounds(recipe, RoundsConfig(train=train), model, tmp_path, generator=generator(model))
    before, after = (
        [share_even(prompts[0], each) for group in groups for each in group]
        for groups in (read_samples(tmp_path / f"round_{n}/samples.jsonl") for n in range(2))
    )
    kept = {
        path.ids
        for tree in read_trees(tmp_path / "round_0/trees.jsonl")
        for path in (tree.path(0), tree.path(1))
    }
    kept_rewards = [sum(token % 2 == 0 for token in ids[-2:]) / 2 for ids in kept]
    assert sum(kept_rewards) / len(kept) > sum(before) / len(before) + 0.1
    assert sum(after) / len(after) > sum(before) / len(before) + 0.15
