"""Play RTO with a tiny policy, die again and again, and end. Run by test_online_loop.py.

python killed_online.py WHOLE BROKEN     two run folders; prints how often the second was killed,
                                         and how often between two checkpoints of PPO

Each attempt is a forked process that kills itself with SIGKILL at its n-th opening or renaming of a
file in the run: samples, scores, a checkpoint half written, its seal, a manifest. n grows, so that
attempts die in every part and at last one gets through.
"""

import gc
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from online_tasks import PROMPTS, count_odd, make_generator, make_pair, make_small_policy
from trillium.training.config import TrainConfig
from trillium.training.recipes.rejection import Reward
from trillium.training.recipes.token_rewards import TokenRewardsConfig, train_token_rewards


def play(folder: Path) -> None:
    model = make_small_policy(dropout=0.1)
    pairs = [make_pair(p.id, p, (5, 7, 9 + 2 * n), (6, 4)) for n, p in enumerate(PROMPTS[:6])]
    config = TokenRewardsConfig(
        train=TrainConfig(per_device_train_batch_size=3, save_steps=1, learning_rate=1e-3),
        n_iterations=8,
        prompts_per_iteration=4,
        n_samples=2,
        max_new_tokens=3,
        trees_per_step=2,
        learning_rate=5e-3,
        critic_learning_rate=1e-2,
        save_steps=2,
        seed=1,
    )
    judge = Reward("odd", count_odd)
    train_token_rewards(config, pairs, PROMPTS, model, make_generator(model), folder, judge=judge)


def attempt(folder: Path, n_events: int) -> int:
    """Play in a child that dies at a given event; returns how it ended."""
    child = os.fork()
    if child == 0:
        left = n_events

        def count(event: str, arguments) -> None:
            nonlocal left
            if event in ("open", "os.rename") and str(arguments[0]).startswith(str(folder)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        play(folder)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    gc.freeze()
    whole, broken = map(Path, sys.argv[1:])
    assert attempt(whole, 0) == 0
    n_killed = n_within = 0
    while (status := attempt(broken, 20 + 6 * n_killed)) != 0:
        assert os.WTERMSIG(status) == signal.SIGKILL
        n_killed += 1
        sealed = {path.parent.name for path in broken.glob(".work/ppo-*/ppo/*/sealed.json")}
        n_within += bool(sealed) and "checkpoint-8" not in sealed
    print(n_killed, n_within)


if __name__ == "__main__":
    main()
