import pytest
import torch
from pydantic import ValidationError
from trillium.errors import DataError
from trillium.objectives.recipe_configs import HyPOConfig
from trillium.training.recipes.hybrid import HybridConfig, prompt_of, train_hybrid
from trillium.trees import TokenPath, TokenTree

from .online_tasks import N_TOKENS, PROMPTS, make_generator, make_pair, make_small_policy

CONFIG = HybridConfig(n_iterations=30, n_samples=4, max_new_tokens=4, learning_rate=5e-3)


def random_pairs() -> list[TokenTree]:
    generator = torch.Generator().manual_seed(0)
    replies = torch.randint(4, N_TOKENS, (16, 2, 4), generator=generator).tolist()
    return [
        make_pair(f"{n}", PROMPTS[n % 8], tuple(chosen), tuple(rejected))
        for n, (chosen, rejected) in enumerate(replies)
    ]


def test_hypo_orders_the_pairs_as_dpo_does_and_stays_nearer_to_the_reference(tmp_path):
    """Offline pairs say nothing of other responses; only samples of the policy hold it there."""

    def train(lam: float, rloo: bool) -> dict[str, float]:
        objective = HyPOConfig(lam=lam, rloo=rloo)
        config = CONFIG.model_copy(update={"objective": objective})
        model, output = make_small_policy(), tmp_path / f"{lam} {rloo}"
        last = train_hybrid(config, random_pairs(), model, make_generator(model), output).metrics
        return {
            name: sum(row[name] for row in last[-4:]) / 4 for name in ("kl", "rewards/accuracies")
        }

    dpo, hypo, plain = train(0.0, rloo=True), train(0.05, rloo=True), train(0.05, rloo=False)
    for name, each in (("dpo", dpo), ("hypo, rloo", hypo), ("hypo, no baseline", plain)):
        order = each["rewards/accuracies"]
        print(f"{name}: {each['kl']:.2f} nats from the reference, {order:.0%} of pairs in order")
    assert max(hypo["kl"], plain["kl"]) < dpo["kl"] / 1.5
    assert min(hypo["rewards/accuracies"], plain["rewards/accuracies"]) > 0.95


def test_the_first_step_is_that_of_dpo(tmp_path):
    """Where policy and reference agree every log-ratio is 0, and so is the gradient of the KL."""
    adapters = []
    for lam in (0.0, 10.0):
        objective = HyPOConfig(lam=lam, rloo=True)
        config = CONFIG.model_copy(update={"objective": objective, "n_iterations": 1})
        model, output = make_small_policy(), tmp_path / f"{lam}"
        result = train_hybrid(config, random_pairs(), model, make_generator(model), output)
        adapters.append((result.adapter / "adapter_model.safetensors").read_bytes())
        assert result.metrics[0]["kl"] == 0.0
    assert adapters[0] == adapters[1]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"num_train_epochs": 2}, "learns from every sample once"),
        ({"prompts_per_iteration": 9}, "learns from every sample once"),
        ({"n_samples": 1}, "needs n_samples of 2 or more"),
    ],
)
def test_samples_must_be_fresh_and_a_baseline_needs_others(wrong, sentence):
    with pytest.raises(ValidationError, match=sentence):
        HybridConfig(**wrong)


def test_only_pairs_of_one_prompt_will_do(tmp_path):
    pair = make_pair("p", PROMPTS[0], (5, 6), (7,))
    assert prompt_of(pair).ids == PROMPTS[0].ids
    two = TokenTree.from_paths(
        "two", [TokenPath((4, 5, 6), (False, True, True)), TokenPath((4, 5), (False, False))]
    )
    model = make_small_policy()
    with pytest.raises(DataError, match="tree two: has 2 responses to 2 prompts"):
        train_hybrid(CONFIG, [pair, two], model, make_generator(model), tmp_path)
