import math
from itertools import pairwise

import pytest
from trillium.errors import ConfigError, DataError
from trillium.generation import Completion, SamplingConfig
from trillium.objectives.configs import GPOConfig, SPPOConfig
from trillium.training.config import TrainConfig
from trillium.training.recipes.self_play import (
    BestAgainstWorst,
    PreferenceScore,
    WinProbability,
    gpo,
    sppo,
)
from trillium.training.round_rows import Candidates, Prompt, read_trees
from trillium.training.round_sampling import read_samples
from trillium.training.rounds import RoundsConfig, run_rounds

PROMPT = Prompt("p", (5, 6), "p")
SAMPLING = SamplingConfig(n_samples=16, temperature=1.0, top_p=1.0, top_k=6, max_new_tokens=2)
CONFIG = RoundsConfig(
    train=TrainConfig(per_device_train_batch_size=6, learning_rate=1e-2, max_steps=12)
)


def reply(*ids: int) -> Completion:
    return Completion(ids, "", "stop")


def share_even(completion: Completion) -> float:
    return sum(token % 2 == 0 for token in completion.ids) / len(completion.ids)


def even_wins(prompt: Prompt, first: Completion, second: Completion) -> float:
    return 1 / (1 + math.exp(-4 * (share_even(first) - share_even(second))))


def rock_paper_scissors(prompt: Prompt, first: Completion, second: Completion) -> float:
    """Say which first token, taken mod 3, beats the other: 1 beats 0, 2 beats 1, 0 beats 2."""
    return (0.0, 1.0, -1.0)[(first.ids[0] - second.ids[0]) % 3]


def test_a_win_probability_is_the_mean_over_all_samples_itself_included() -> None:
    table = {(4, 5): 0.9, (4, 6): 0.6, (5, 6): 0.2}

    def compare(prompt: Prompt, first: Completion, second: Completion) -> float:
        key = (first.ids[0], second.ids[0])
        return table[key] if key in table else 1 - table[key[::-1]]

    found = WinProbability("table", compare).score(PROMPT, [reply(4), reply(5), reply(6)])
    assert found == pytest.approx([(0.5 + 0.9 + 0.6) / 3, (0.1 + 0.5 + 0.2) / 3, 1.7 / 3])


def test_a_judge_who_always_takes_the_first_prefers_nobody() -> None:
    biased = WinProbability("first", lambda prompt, first, second: 1.0)
    assert biased.score(PROMPT, [reply(4), reply(5), reply(6)]) == [0.5, 0.5, 0.5]


def test_a_cycle_scores_by_who_is_in_the_majority() -> None:
    """Two rocks, one paper, no scissors: paper wins two of three, each rock loses one."""
    judge = PreferenceScore("rps", rock_paper_scissors)
    assert judge.score(PROMPT, [reply(3), reply(4), reply(6)]) == pytest.approx(
        [-1 / 3, 2 / 3, -1 / 3]
    )


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match=r"judge odd: gave 2\.0 for prompt p"):
        WinProbability("odd", lambda *_: 2.0).score(PROMPT, [reply(4), reply(5)])


def test_the_scores_travel_with_the_pair_and_equal_ones_make_none() -> None:
    selection = BestAgainstWorst("p_win")
    candidates = Candidates(PROMPT, (reply(4), reply(5, 2), reply(6)), (0.5, 0.8, 0.2))
    (pair,) = selection.select(candidates, seed=0)
    assert (pair.path(0).ids, pair.path(1).ids) == ((5, 6, 5, 2), (5, 6, 6))
    assert pair.path(0).scored == (False, False, True, True)
    assert pair.columns == {"p_win_chosen": 0.8, "p_win_rejected": 0.2}
    assert selection.select(Candidates(PROMPT, (reply(4), reply(5)), (0.5, 0.5)), seed=0) == []


def test_sppo_meets_its_targets_and_each_policy_beats_the_one_before(
    prompts, policy, generator, tmp_path
):
    """SPPO regresses: trained log-ratios end near (p - 1/2)/beta, and the next samples win more."""
    model = policy(spread=0.0)
    recipe = sppo(
        prompts, SAMPLING, WinProbability("even", even_wins), objective=SPPOConfig(beta=0.2)
    )
    rounds = run_rounds(recipe, CONFIG, model, tmp_path, generator=generator(model))
    for each in rounds:
        assert each.metrics[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
        assert each.metrics[-1]["loss"] < 0.3 * each.metrics[0]["loss"]
    samples = [
        [each for group in read_samples(tmp_path / f"round_{n}/samples.jsonl") for each in group]
        for n in range(3)
    ]
    shares = [sum(map(share_even, group)) / len(group) for group in samples]
    assert shares[0] + 0.08 < shares[1]
    assert shares[1] + 0.08 < shares[2]
    # The samples of a round are those of the policy it starts from, so targets stay bounded.
    for tree in read_trees(rounds[2].trees):
        assert 0 <= tree.columns["p_win_rejected"] < 0.5 < tree.columns["p_win_chosen"] <= 1


def test_gpo_learns_to_beat_the_policy_before_under_cyclic_preferences(
    prompts, policy, generator, tmp_path
):
    """No reward fits rock, paper, scissors; the next policy still beats what the last one plays."""
    model = policy(spread=0.0)
    judge = PreferenceScore("rps", rock_paper_scissors)
    sampling = SAMPLING.model_copy(update={"max_new_tokens": 1})
    recipe = gpo(prompts, sampling, judge, n_rounds=3, objective=GPOConfig(beta=0.1))
    rounds = run_rounds(recipe, CONFIG, model, tmp_path, generator=generator(model))
    assert all(each.metrics[-1]["loss"] < 0.5 * each.metrics[0]["loss"] for each in rounds)
    samples = [read_samples(tmp_path / f"round_{n}/samples.jsonl") for n in range(3)]
    for before, after in pairwise(samples):
        scores = [
            rock_paper_scissors(prompt, new, old)
            for prompt, olds, news in zip(prompts, before, after, strict=True)
            for old in olds
            for new in news
        ]
        assert sum(scores) / len(scores) > 0.1


def test_a_recipe_that_samples_needs_a_generator(prompts, policy, tmp_path):
    recipe = sppo(prompts, SAMPLING, WinProbability("even", even_wins))
    with pytest.raises(ConfigError, match="recipe sppo: samples from the policy and has no gener"):
        run_rounds(recipe, CONFIG, policy(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
