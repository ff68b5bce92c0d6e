"""Learning from one's own samples: cut off anywhere, it ends where it would have."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook
from trillium.errors import BackendError, DataError
from trillium.generation.in_process import TransformersGenerator
from trillium.manifest import read_manifest
from trillium.policies.adapters import adapter_parameters
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.online import OnlineResult
from trillium.training.recipes.exploration import ExplorationConfig, train_exploration
from trillium.training.recipes.pairwise_ppo import PairwiseConfig, train_pairwise
from trillium.training.recipes.rejection import Reward

from .recipes.online_tasks import PROMPTS, count_odd, make_generator, make_small_policy

SCRIPT = Path(__file__).with_name("killed_online.py")
ODD = Reward("odd", count_odd)
XPO = ExplorationConfig(
    n_iterations=5,
    prompts_per_iteration=4,
    max_new_tokens=3,
    trees_per_step=4,
    learning_rate=5e-3,
    save_steps=2,
)
P3O = PairwiseConfig(
    n_iterations=4, prompts_per_iteration=4, max_new_tokens=3, trees_per_step=4, learning_rate=5e-3
)


class CountingGenerator(TransformersGenerator):
    """Counts the batches that are drawn."""

    n_batches = 0

    def generate_batch(self, batch, sampling):
        type(self).n_batches += 1
        return super().generate_batch(batch, sampling)


def explore(output, *, n_iterations=5) -> OnlineResult:
    model = make_small_policy(dropout=0.2)
    config = XPO.model_copy(update={"n_iterations": n_iterations})
    generator = CountingGenerator(model, tiny_tokenizer(), max_rows=2)
    return train_exploration(config, PROMPTS, model, generator, ODD, output)


def play(output, *, judge=ODD, prompts=PROMPTS, model=None, **changes) -> OnlineResult:
    model = model or make_small_policy(dropout=0.2)
    config = P3O.model_copy(update=changes)
    return train_pairwise(config, prompts, model, make_generator(model), judge, output)


def weights(result: OnlineResult) -> bytes:
    return (result.adapter / "adapter_model.safetensors").read_bytes()


def test_a_run_cut_off_at_any_step_ends_in_the_same_bytes_and_draws_nothing_twice(tmp_path):
    """XPO carries all pairs so far; an iteration that is learned again is read, not sampled."""
    whole, CountingGenerator.n_batches = explore(tmp_path / "whole"), 0
    n_updates = [row["updates"] for row in whole.metrics]
    # In the first iteration; after a checkpoint; between two, whose first iteration is repeated.
    for n_steps in (0, n_updates[0] + 1, n_updates[2] + 1, n_updates[2] + n_updates[3] + 1):
        left = iter(range(n_steps))

        def die(*_, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        hook = register_optimizer_step_pre_hook(die)
        with pytest.raises(KeyboardInterrupt):
            explore(tmp_path / "broken")
        hook.remove()
    broken = explore(tmp_path / "broken")
    assert (weights(broken), broken.metrics) == (weights(whole), whole.metrics)
    # Five iterations of four prompts, one sample by the policy and one by the reference.
    assert CountingGenerator.n_batches == 5 * 4 * 2 / 2
    again = explore(tmp_path / "whole")
    assert (again, CountingGenerator.n_batches) == (whole, 20)


def test_more_iterations_continue_a_shorter_run_and_fewer_do_not(tmp_path):
    short = weights(explore(tmp_path / "a", n_iterations=2))
    long = weights(explore(tmp_path / "b", n_iterations=4))
    CountingGenerator.n_batches = 0
    assert weights(explore(tmp_path / "a", n_iterations=4)) == long != short
    assert CountingGenerator.n_batches == 2 * 4
    assert weights(explore(tmp_path / "b", n_iterations=2)) == short


def test_another_judge_or_seed_starts_anew(tmp_path):
    first = weights(play(tmp_path))
    even = Reward("even", lambda prompt, each: -count_odd(prompt, each))
    other = weights(play(tmp_path, judge=even))
    assert other == weights(play(tmp_path / "fresh", judge=even)) != first
    assert weights(play(tmp_path, seed=1)) not in (first, other)
    kept = [folder.name.partition("-")[0] for folder in (tmp_path / "rollouts").iterdir()]
    assert sorted(kept) == ["1", "2", "3", "4"]


def test_every_prompt_comes_once_per_pass(tmp_path):
    play(tmp_path)
    passes = [Counter(), Counter()]
    for folder in (tmp_path / "rollouts").iterdir():
        number = int(folder.name.partition("-")[0])
        for line in (folder / "scores.jsonl").read_text().splitlines():
            passes[(number - 1) // 2][json.loads(line)["prompt"]] += 1
    assert passes == [Counter(prompt.id for prompt in PROMPTS)] * 2


def test_dropout_is_off_so_that_fresh_samples_are_the_policy_s_own(tmp_path):
    """Policy equal to reference: no distance before the first step, whatever the dropout."""
    metrics = play(tmp_path, model=make_small_policy(dropout=0.5)).metrics
    assert metrics[0]["kl"] == 0.0
    assert all(row["kl"] != 0.0 for row in metrics[1:])


def test_what_cannot_be_played_is_refused(tmp_path):
    with pytest.raises(DataError, match="p3o: no prompt to answer"):
        play(tmp_path, prompts=())
    with pytest.raises(DataError, match="p3o: 2 prompts are called 0"):
        play(tmp_path, prompts=(*PROMPTS, PROMPTS[0]))


def test_a_gradient_that_is_not_finite_ends_the_run_with_a_sentence(tmp_path):
    model = make_small_policy()
    first = next(iter(adapter_parameters(model).values()))
    first.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(BackendError, match="iteration 1: the gradient norm of policy is"):
        play(tmp_path, model=model)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    """RTO: samples, scores, metrics and adapters, through checkpoints of policy and critic."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    folders = [str(SCRIPT.parent), str(SCRIPT.parent / "recipes")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(whole), str(broken)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*folders, *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    n_killed, n_within = map(int, done.stdout.split())
    assert n_killed >= 5
    assert n_within >= 2
    files = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".part"}
        for folder in (whole, broken)
    ]
    assert files[0] == files[1]
    clocks = {"run.json", "timing.jsonl", "environment.json", ".lock"}
    compared = [name for name in files[0] if (whole / name).is_file() and name.name not in clocks]
    assert len({name.name for name in compared}) >= 6
    for name in compared:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert list(read_manifest(broken).stages) == ["start", "align", "ppo"]
    assert not read_manifest(broken).attempts


def test_gradients_that_a_call_cut_short_left_behind_are_not_learned_from(tmp_path):
    whole = play(tmp_path / "whole", model=make_small_policy())
    model = make_small_policy()

    def die(*_):
        raise KeyboardInterrupt

    hook = register_optimizer_step_pre_hook(die)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "again", model=model)
    hook.remove()
    assert any(each.grad is not None for each in model.parameters())
    assert weights(play(tmp_path / "again", model=model)) == weights(whole)
