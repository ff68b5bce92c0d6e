"""Align a tiny policy; die at a given step as `kill -9` would. Run by test_resume.py.

python resume_run.py OUTPUT [--objective NAME] [--kill-at STEP] [--accumulation N]
"""

import argparse
import os
import signal
import warnings
from functools import partial
from pathlib import Path

import torch
from conftest import make_pairs, make_policy, make_singles, make_trees
from transformers import TrainerCallback
from trillium.objectives.table import OBJECTIVES
from trillium.scoring.reference import BaseReference
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig
from trillium.training.processes import joined_processes


class Die(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **_):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--objective", default="dpo")
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(123)
    policy = make_policy(spread=0.0, dropout=options.dropout)
    # Masks with dropout: their noise must be that of a run that never stopped.
    chosen = {"mask_dropout": 0.1} if options.objective == "sparsepo" else {}
    objective = OBJECTIVES[options.objective].config(**chosen)
    config = AlignConfig(
        objective=objective,
        train=TrainConfig(
            per_device_train_batch_size=2,
            gradient_accumulation_steps=options.accumulation,
            num_train_epochs=2,
            save_steps=3,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            eval_steps=4,
            micro_tokens=64,
        ),
    )
    make = {"dpo": make_pairs, "cpo": make_pairs, "kto": make_singles}.get(
        options.objective, partial(make_trees, objective)
    )
    with joined_processes():
        align(
            config,
            make(21),
            policy,
            BaseReference(policy),
            options.output,
            held_out=make(4, seed=5),
            callbacks=[Die(options.kill_at)],
        )


if __name__ == "__main__":
    main()
