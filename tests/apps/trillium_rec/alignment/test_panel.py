"""Who is on the panel of a run."""

import numpy as np
from trillium_rec.alignment.run_alignment import _panel
from trillium_rec.config import RecConfig
from trillium_rec.dataset import RawLog, build_dataset
from trillium_rec.preparation import RunData
from trillium_rec.reward.config import HeadConfig, RewardConfig
from trillium_rec.reward.fitting import build_reward_model
from trillium_rec.sources import DataConfig, SequenceSource
from trillium_rec.splits import leave_one_out


def test_a_user_who_has_taken_every_item_is_left_out_and_counted(tmp_path):
    taken = {"u": "abcd", "v": "abcdea", "w": "aeb"}
    users = [user for user, items in taken.items() for _ in items]
    log = build_dataset(RawLog("log", users, list("".join(taken.values())), range(len(users))))
    found = RunData(log, log, leave_one_out(log), "hash")
    source = SequenceSource(path=tmp_path / "log.txt")
    config = RewardConfig(heads=(HeadConfig(column="like"),), d_model=8)
    reward = build_reward_model(config, 5, None, seed=0)
    everything, vectors = np.ones(5, np.bool_), np.eye(5, dtype=np.float32)
    panel = _panel(
        RecConfig(data=DataConfig(source=source)), found, reward, reward, everything, vectors
    )
    assert (panel.users, panel.n_left_out) == (("u", "w"), 1)
    assert [panel.histories.of(row).tolist() for row in range(2)] == [[0, 1, 2], [0, 4]]
    assert [panel.targets.of(row).tolist() for row in range(2)] == [[3], [1]]
