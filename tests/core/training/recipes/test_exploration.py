import torch
from peft import PeftModel
from trillium.layouts import collate
from trillium.objectives.recipe_configs import XPOConfig
from trillium.scoring.scores import score
from trillium.training.recipes.exploration import ExplorationConfig, train_exploration
from trillium.training.recipes.rejection import Reward
from trillium.training.round_rows import read_trees

from .online_tasks import N_TOKENS, PROMPTS, make_generator, make_small_policy

WORTH = torch.randn(N_TOKENS, generator=torch.Generator().manual_seed(0))
SEEDS = range(3)


@torch.no_grad()
def next_token(model: PeftModel) -> torch.Tensor:
    """Return each prompt's distribution over the next token."""
    ids = torch.tensor([prompt.ids for prompt in PROMPTS])
    return model(input_ids=ids).logits[:, -1].softmax(-1)


def train(alpha: float, seed: int, output, *, judge=None, n_iterations=12, n_tokens=1) -> PeftModel:
    model = make_small_policy(sharpness=1.5)
    config = ExplorationConfig(
        n_iterations=n_iterations,
        prompts_per_iteration=8,
        max_new_tokens=n_tokens,
        trees_per_step=64,
        learning_rate=5e-3,
        objective=XPOConfig(alpha=alpha),
        save_steps=6,
        seed=seed,
    )
    judge = judge or Reward("worth", lambda prompt, each: WORTH[each.ids[0]].item())
    train_exploration(config, PROMPTS, model, make_generator(model), judge, output)
    return model


def test_with_the_bonus_the_policy_leaves_the_reference_and_earns_more(tmp_path):
    """Both arms have the same 96 labels; alpha = 0 is online DPO.

    Surprise is asserted for each seed, what is earned for the mean over them.
    """
    reference = next_token(make_small_policy(sharpness=1.5))

    def learn(alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
        found = [next_token(train(alpha, seed, tmp_path / f"{alpha} {seed}")) for seed in SEEDS]
        surprise = [-(reference * each.log()).sum(-1).mean() for each in found]
        return torch.stack(surprise), torch.stack([(each @ WORTH).mean() for each in found])

    (left, earned), (stayed, plain) = learn(0.01), learn(0.0)
    print(f"xpo: surprise at reference samples {left.tolist()} nats, online dpo {stayed.tolist()}")
    print(f"xpo: expected worth {earned.tolist()}, online dpo {plain.tolist()}")
    assert (left > stayed + 0.1).all()
    assert earned.mean() > plain.mean() + 0.02


@torch.no_grad()
def test_the_bonus_pushes_down_what_the_reference_wrote_and_not_the_policy_s_own(tmp_path):
    def learn(alpha: float) -> torch.Tensor:
        """Return the log-probabilities (reference's, policy's) of one iteration's samples."""
        with torch.enable_grad():
            model = train(alpha, 0, tmp_path / f"{alpha}", n_iterations=1, n_tokens=3)
        pairs = read_trees(tmp_path / f"{alpha}" / "checkpoint-1" / "pairs.jsonl")
        logps = score(model, collate(pairs, layout="padded", pad_id=0)).logps.reshape(-1, 2)
        sides = [
            each if pair.columns["reference_is_chosen"] else each.flip(0)
            for pair, each in zip(pairs, logps, strict=True)
        ]
        return torch.stack(sides)

    of_reference, of_policy = (learn(1.0) - learn(0.0)).mean(0).tolist()
    print(
        f"xpo: the bonus moves {of_reference:.2f} nats at reference samples, "
        f"{of_policy:.2f} at the policy's"
    )
    assert of_reference < -0.1
    assert of_reference < of_policy - 0.1


def test_an_iteration_trains_on_the_pairs_of_all_iterations_so_far(tmp_path):
    train(0.01, 0, tmp_path, n_iterations=3)
    pairs = read_trees(tmp_path / "checkpoint-3" / "pairs.jsonl")
    assert [pair.id.partition("/")[0] for pair in pairs] == [str(n) for n in range(24)]
    assert all(set(pair.labels) == {"reference"} for pair in pairs)


def test_equal_scores_are_settled_by_a_fair_coin(tmp_path):
    """Neither side wins by being first; the coin of a pair never changes."""
    blind = Reward("blind", lambda prompt, each: 0.0)
    for name in ("first", "second"):
        train(0.0, 0, tmp_path / name, judge=blind, n_iterations=6)
    first, second = (
        read_trees(tmp_path / name / "checkpoint-6" / "pairs.jsonl") for name in ("first", "second")
    )
    assert first == second
    won = sum(pair.columns["reference_is_chosen"] for pair in first)
    # Four standard deviations of 48 tosses.
    assert abs(won - 24) < 14
