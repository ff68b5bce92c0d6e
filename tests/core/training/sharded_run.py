"""Align tiny policies, whole and with spread weights, in one process of two. Run by test_sharding.

python sharded_run.py OUTPUT OBJECTIVE...
"""

import json
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from conftest import make_pairs, make_policy, make_singles, make_trees
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from trillium.objectives.table import OBJECTIVES
from trillium.scoring.forward import open_model
from trillium.scoring.reference import BaseReference, SnapshotReference
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig
from trillium.training.processes import joined_processes
from trillium.training.sharding import is_sharded, shard_base


class Stop(TrainerCallback):
    """End a run between two checkpoints, as a kill would."""

    def on_pre_optimizer_step(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt


def train(name, output, *, spreads, recomputes=False, callbacks=()):
    objective = OBJECTIVES[name].config()
    config = AlignConfig(
        objective=objective,
        train=TrainConfig(
            per_device_train_batch_size=2,
            max_steps=6,
            save_steps=2,
            learning_rate=1e-3,
            eval_steps=4,
            micro_tokens=64,
            gradient_checkpointing=recomputes,
        ),
    )
    make = {"dpo": make_pairs, "kto": make_singles}.get(name, partial(make_trees, objective))
    policy = make_policy(spread=0.0)
    reference = (SnapshotReference if name == "kto" else BaseReference)(policy)
    if spreads:
        assert reference.identity
        shard_base(policy)
    assert is_sharded(policy) == spreads
    # 21 trees in steps of four: the last step of an epoch has one tree, so one process has none.
    align(
        config, make(21), policy, reference, output, held_out=make(4, seed=5), callbacks=callbacks
    )
    return policy


def count(policy):
    """Return how many weights of the layers this process keeps, and how many there are."""
    layers = [p for p in open_model(policy).decoder.parameters() if isinstance(p, DTensor)]
    kept = sum(p.to_local().numel() for p in layers)
    return {"kept": kept, "of": sum(p.numel() for p in layers)}


def main() -> None:
    output, objectives = Path(sys.argv[1]), sys.argv[2:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with joined_processes() as processes:
        assert processes.shards
        for name in objectives:
            torch.manual_seed(123)
            train(name, output / name / "whole", spreads=False)
            policy = train(name, output / name / "spread", spreads=True)
        for stopped, ends_spread in (("continued", True), ("continued-whole", False)):
            torch.manual_seed(123)
            try:
                train("dpo", output / stopped, spreads=True, recomputes=True, callbacks=[Stop()])
            except KeyboardInterrupt:
                assert not (output / stopped / "adapter").exists()
            train("dpo", output / stopped, spreads=ends_spread, recomputes=True)
        (output / f"counts-{processes.index}.json").write_text(json.dumps(count(policy)))


if __name__ == "__main__":
    main()
