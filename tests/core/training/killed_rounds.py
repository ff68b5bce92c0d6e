"""Play rounds with a tiny policy, die again and again, and end. Run by test_rounds.py.

python killed_rounds.py WHOLE BROKEN     two run folders; prints how often the second run was killed

Each attempt is a forked process that kills itself with SIGKILL at its n-th rename of a file: a
manifest, a trees file, a checkpoint's seal, an output on its way into the run. n grows, so that
attempts die in every stage and at last one gets through.
"""

import gc
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from conftest import make_policy
from trillium.generation import SamplingConfig
from trillium.generation.in_process import TransformersGenerator
from trillium.objectives.configs import SPPOConfig
from trillium.policies.adapters import adapter_parameters
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.config import TrainConfig
from trillium.training.recipes.recipe import Ema, Evaluation, Recipe, Sampled
from trillium.training.recipes.self_play import BestAgainstWorst, WinProbability
from trillium.training.round_rows import Prompt
from trillium.training.rounds import RoundsConfig, run_rounds


def even_wins(prompt, first, second) -> float:
    shares = [sum(t % 2 == 0 for t in each.ids) / len(each.ids) for each in (first, second)]
    return 0.5 + (shares[0] - shares[1]) / 2


def weigh(model) -> dict[str, float]:
    return {"norm": sum(p.square().sum().item() for p in adapter_parameters(model).values())}


def play(folder: Path) -> None:
    model = make_policy(spread=0.0, dropout=0.1)
    prompts = tuple(Prompt(str(n), (10 + n, 20, 30 + n)) for n in range(4))
    sampling = SamplingConfig(n_samples=4, temperature=1.0, top_k=6, max_new_tokens=2)
    judge = WinProbability("even", even_wins)
    source = Sampled(prompts, sampling, judge, BestAgainstWorst("p_win"))
    train = TrainConfig(per_device_train_batch_size=2, save_steps=1, learning_rate=1e-3)
    recipe = Recipe("sppo", 2, source, SPPOConfig(beta=0.2), reference=Ema(0.5))
    generator = TransformersGenerator(model, tiny_tokenizer(), max_rows=8)
    evaluation = Evaluation("norm", weigh)
    config = RoundsConfig(train=train, seed=1)
    run_rounds(recipe, config, model, folder, generator=generator, evaluation=evaluation)


def attempt(folder: Path, n_renames: int) -> int:
    """Play in a child that dies at a given rename; returns how it ended."""
    child = os.fork()
    if child == 0:
        left = n_renames

        def count(event: str, _) -> None:
            nonlocal left
            if event == "os.rename":
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
    n_killed = 0
    while (status := attempt(broken, 6 + 3 * n_killed)) != 0:
        assert os.WTERMSIG(status) == signal.SIGKILL
        n_killed += 1
    print(n_killed)


if __name__ == "__main__":
    main()
