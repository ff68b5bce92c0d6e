import pytest
import torch
from safetensors.torch import load_file
from trillium.objectives.ppo import ppo_policy
from trillium.objectives.recipe_configs import RTOConfig
from trillium.training.config import TrainConfig
from trillium.training.journal import read_metrics
from trillium.training.recipes import token_ppo
from trillium.training.recipes.rejection import Reward
from trillium.training.recipes.token_rewards import TokenRewardsConfig, train_token_rewards

from .online_tasks import PROMPTS, count_odd, make_generator, make_pair, make_small_policy, write

N_TOKENS = 8
CONFIG = TokenRewardsConfig(
    train=TrainConfig(learning_rate=5e-3, num_train_epochs=4),
    objective=RTOConfig(kl_coef=0.0),
    n_iterations=12,
    prompts_per_iteration=8,
    n_samples=4,
    max_new_tokens=N_TOKENS,
    num_train_epochs=2,
    learning_rate=5e-3,
    critic_learning_rate=1e-2,
    save_steps=6,
)
PERFECT = Reward("all odd", lambda prompt, each: float(count_odd(prompt, each) == N_TOKENS))


def sampled_pairs():
    """Return pairs of the start's own samples; more odd tokens are better."""
    pairs = []
    for prompt, drawn in zip(PROMPTS, write(make_small_policy(), 32, N_TOKENS, 5), strict=True):
        for n, (first, second) in enumerate(zip(drawn[0::2], drawn[1::2], strict=True)):
            gap = count_odd(prompt, first) - count_odd(prompt, second)
            if gap:
                chosen, rejected = (first, second) if gap > 0 else (second, first)
                pairs.append(make_pair(f"{prompt.id}-{n}", prompt, chosen.ids, rejected.ids))
    return pairs


def train(output, *, judge=PERFECT, **changes):
    model = make_small_policy()
    config = CONFIG.model_copy(update=changes)
    generator = make_generator(model)
    result = train_token_rewards(
        config, sampled_pairs(), PROMPTS, model, generator, output, judge=judge
    )
    return model, result


def share_odd(model) -> float:
    drawn = [each for group in write(model, 16, N_TOKENS, 6) for each in group]
    return sum(count_odd(PROMPTS[0], each) for each in drawn) / (N_TOKENS * len(drawn))


@pytest.mark.slow
def test_token_rewards_lead_to_a_reward_that_is_too_rare_to_be_found(tmp_path):
    """The judge pays for perfection, 2 % of samples at first; the pairs tell tokens apart.

    Both arms draw the same number of samples; without token rewards this is PPO. Shares of odd
    tokens for two seeds, asserted for each.
    """
    dense, sparse = (
        torch.tensor(
            [
                share_odd(
                    train(
                        tmp_path / f"{beta1} {seed}",
                        seed=seed,
                        objective=RTOConfig(beta1=beta1, kl_coef=0.0),
                    )[0]
                )
                for seed in range(2)
            ]
        )
        for beta1 in (0.05, 0.0)
    )
    start = share_odd(make_small_policy())
    print(f"rto: odd tokens {dense.tolist()}, ppo {sparse.tolist()}, at the start {start:.3f}")
    assert (dense > sparse + 0.05).all()


def test_the_critic_learns_what_is_still_to_be_earned(tmp_path):
    judge = Reward("odd", lambda prompt, each: count_odd(prompt, each) / N_TOKENS)
    _, result = train(tmp_path, judge=judge, objective=RTOConfig(beta1=0.0, kl_coef=0.0))
    losses = [row["loss_value"] for row in result.metrics]
    print(f"rto: value loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    assert losses[-1] < losses[0] / 3


def test_ppo_starts_where_dpo_started_and_both_adapters_are_kept(tmp_path):
    model, result = train(tmp_path, n_iterations=2, judge=None)
    assert result.metrics[0]["kl"] == 0.0
    assert result.metrics[1]["kl"] != 0.0
    rewarded = read_metrics(tmp_path / "aligned")
    assert rewarded[-1]["rewards/accuracies"] > 0.7
    served, aligned = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (result.adapter, result.aligned)
    )
    held = dict(model.named_parameters())
    for key, value in served.items():
        assert torch.equal(held[key.replace(".weight", ".default.weight")], value)
        assert not torch.equal(aligned[key], value)
    assert "critic" not in model.peft_config
    _, again = train(tmp_path, n_iterations=2, judge=None)
    assert again == result


def test_cutting_a_step_into_rows_changes_no_gradient(tmp_path):
    found = []
    for micro_tokens in (32, 4096):
        _, result = train(tmp_path / f"{micro_tokens}", n_iterations=1, micro_tokens=micro_tokens)
        found.append(load_file(result.adapter / "adapter_model.safetensors"))
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-3, atol=1e-5)


def test_the_share_of_clipped_tokens_is_that_of_the_iteration(tmp_path, monkeypatch):
    """Steps hold one prompt or three and completions of any length: tokens weigh alike."""
    n_outside = n_scored = 0

    def watch(policy, *, old, advantages, scored, clip):
        nonlocal n_outside, n_scored
        ratio = (policy.detach() - old).exp()
        n_outside += int((((ratio - 1).abs() > clip) & scored).sum())
        n_scored += int(scored.sum())
        return ppo_policy(policy, old=old, advantages=advantages, scored=scored, clip=clip)

    monkeypatch.setattr(token_ppo, "ppo_policy", watch)
    changes = {"n_iterations": 1, "prompts_per_iteration": 4, "trees_per_step": 3}
    fast = {"learning_rate": 3e-2, "max_new_tokens": 24}
    _, result = train(tmp_path, judge=None, **changes, **fast)
    assert n_outside > 0
    assert result.metrics[0]["clipped"] == pytest.approx(n_outside / n_scored, rel=1e-12)
