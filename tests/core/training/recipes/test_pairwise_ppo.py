import pytest
from trillium.objectives.recipe_configs import P3OConfig
from trillium.training.recipes.pairwise_ppo import PairwiseConfig, train_pairwise
from trillium.training.recipes.rejection import Reward

from .online_tasks import PROMPTS, count_odd, make_generator, make_small_policy

CONFIG = PairwiseConfig(
    n_iterations=12,
    prompts_per_iteration=8,
    max_new_tokens=4,
    num_train_epochs=2,
    learning_rate=1e-2,
    kl_coef=0.02,
    save_steps=4,
)


def train(output, *, config=CONFIG, judge=None, model=None):
    model = model or make_small_policy()
    judge = judge or Reward("odd", count_odd)
    return train_pairwise(config, PROMPTS, model, make_generator(model), judge, output)


def weights(result) -> bytes:
    return (result.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_p3o_learns_what_scores_without_a_value_function(variant, tmp_path):
    config = CONFIG.model_copy(update={"objective": P3OConfig(variant=variant)})
    scores = [row["score"] for row in train(tmp_path, config=config).metrics]
    before, after = sum(scores[:2]) / 2, sum(scores[-2:]) / 2
    print(f"p3o {variant}: odd tokens of four, {before:.2f} at first and {after:.2f} at last")
    assert after > before + 1.0


def test_what_a_judge_adds_to_all_answers_of_a_prompt_changes_no_byte(tmp_path):
    """PPO's value function would have to learn the sixteens first; P3O never sees them."""
    shifted = Reward("shifted", lambda prompt, each: count_odd(prompt, each) + 16 * int(prompt.id))
    plain, other = train(tmp_path / "plain"), train(tmp_path / "shifted", judge=shifted)
    assert weights(plain) == weights(other)
    found = other.metrics[-1]["score"] - plain.metrics[-1]["score"]
    print(f"p3o: scores shifted by {found:g} on average give the same adapter")
    assert found == 16 * sum(range(8)) / 8


def test_a_price_on_distance_keeps_the_policy_near_its_start(tmp_path):
    def distance(kl_coef: float) -> float:
        config = CONFIG.model_copy(update={"kl_coef": kl_coef})
        return train(tmp_path / f"{kl_coef}", config=config).metrics[-1]["kl"]

    free, priced = distance(0.0), distance(1.0)
    print(f"p3o: {free:.2f} nats from the start without a price, {priced:.2f} with one")
    assert priced < free - 0.5
