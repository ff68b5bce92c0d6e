"""A long run needs no more memory than a short one."""

import psutil
import pytest
from transformers import TrainerCallback
from trillium.objectives.configs import DPOConfig
from trillium.scoring.reference import BaseReference
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig


class Weigh(TrainerCallback):
    def __init__(self):
        self.bytes = []

    def on_step_end(self, args, state, control, **_):
        self.bytes.append(psutil.Process().memory_info().rss)


@pytest.mark.slow
def test_memory_is_flat_over_300_steps(pairs, policy, tmp_path):
    scale = Weigh()
    model = policy(spread=0.0)
    config = AlignConfig(
        objective=DPOConfig(),
        train=TrainConfig(per_device_train_batch_size=4, max_steps=300, save_steps=100),
    )
    align(config, pairs(32), model, BaseReference(model), tmp_path, callbacks=[scale])
    assert len(scale.bytes) == 300
    grown = max(scale.bytes[250:]) - max(scale.bytes[50:100])
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB in 200 steps"
