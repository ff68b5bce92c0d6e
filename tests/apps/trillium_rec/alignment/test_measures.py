from dataclasses import replace

import numpy as np
import pytest
import torch
from trillium.errors import DataError
from trillium_rec.alignment.measures import (
    Panel,
    best_rewarded,
    likeliest,
    measure_policy,
    rerank_lists,
    rows_with_a_session,
)
from trillium_rec.alignment.pool import Pool, session_code_logps
from trillium_rec.reward.config import HeadConfig, RewardConfig
from trillium_rec.reward.fitting import build_reward_model
from trillium_rec.splits import pack

N_ITEMS = 14


@pytest.fixture
def panel():
    config = RewardConfig(heads=(HeadConfig(column="like"),), d_model=8, n_places=2)
    reward, judge = (build_reward_model(config, N_ITEMS, None, seed=s).train(False) for s in (1, 2))
    return Panel(
        ("a", "b"),
        pack([np.array([0, 1]), np.array([2])]),
        pack([np.array([3, 4]), np.array([5])]),
        reward,
        judge,
        lambda lists: lists.sum(axis=1).astype(float),
        np.arange(N_ITEMS),
        np.ones(N_ITEMS, np.bool_),
        np.eye(N_ITEMS, dtype=np.float32),
    )


def test_the_likeliest_is_first_and_the_best_has_the_highest_reward():
    sessions = torch.tensor([[[1, 2], [3, 4], [5, 6]]])
    rewards = torch.tensor([[0.1, 0.5, -torch.inf]])
    pool = Pool(sessions, torch.tensor([[-1.0, -2.0, -torch.inf]]), rewards)
    assert likeliest(pool).tolist() == [[1, 2]]
    assert best_rewarded(pool).tolist() == [[3, 4]]


def test_a_reranked_list_begins_with_the_session_and_repeats_nothing():
    lists = rerank_lists(np.array([[7, 3], [1, -1]]), np.array([[1, 2, 3, 4], [5, 1, 2, 6]]))
    assert lists.tolist() == [[7, 3, 1, 2], [1, 5, 2, 6]]


def test_hits_rewards_and_exposure_are_those_of_what_is_shown(panel, make_ids, make_lazy):
    model = make_lazy(make_ids(N_ITEMS, (4, 5)))
    sessions = np.array([[3, 9], [8, 5]])
    lists = np.array([[9, 3, *range(5, 13)], [8, 7, 6, 5, 0, 1, 3, 4, 9, 10]])
    found = measure_policy(panel, model, sessions, lists)
    # User a: 3 of the targets 3 and 4 at place 2; user b: 5 at place 4.
    assert found.values["recall@5"] == (0.5, 1.0)
    ideal = 1 + 1 / np.log2(3)
    assert found.values["ndcg@10"] == pytest.approx((1 / np.log2(3) / ideal, 1 / np.log2(5)))
    assert found.values["session_recall"] == (0.5, 1.0)
    assert found.values["oracle"] == (12.0, 13.0)
    expected = panel.judge.score(panel.histories, torch.from_numpy(sessions)[:, None])[:, 0]
    assert found.values["judge"] == pytest.approx(expected.tolist())
    assert found.totals["coverage"] == 12 / 14
    assert found.totals["session_coverage"] == 4 / 14
    assert found.totals["top_3_share"] == 3 / 4
    assert found.totals["validity"] == 1.0
    with torch.no_grad():
        logged = session_code_logps(model, panel.histories, torch.tensor([[[3, 4]], [[5, -1]]]))
    assert found.values["logged_logp"] == pytest.approx(
        (logged[0].sum().item() / 2, logged[1].sum().item()), rel=1e-5
    )


def test_an_item_of_the_history_is_no_valid_place(panel, make_ids, make_lazy):
    model = make_lazy(make_ids(N_ITEMS, (4, 5)))
    lists = np.tile(np.arange(4, 14), (2, 1))
    found = measure_policy(panel, model, np.array([[0, 9], [8, 5]]), lists)
    assert found.totals["validity"] == 0.75


def test_a_longer_logged_session_counts_with_its_first_items(panel, make_ids, make_onerec):
    model = make_onerec(make_ids(N_ITEMS, (4, 5)), n_session=2)
    longer = replace(panel, targets=pack([np.array([3, 4, 6]), np.array([5])]))
    sessions, lists = np.array([[3, 9], [8, 5]]), np.tile(np.arange(4, 14), (2, 1))
    found = [measure_policy(each, model, sessions, lists) for each in (panel, longer)]
    assert found[0].values["logged_logp"] == found[1].values["logged_logp"]


def test_who_has_taken_every_eligible_item_has_no_session():
    histories = pack([np.array([0, 1, 2, 1]), np.array([0, 3]), np.array([0, 1, 2, 3])])
    is_eligible = np.array([True, True, True, False])
    assert rows_with_a_session(histories, is_eligible).tolist() == [1]
    with pytest.raises(DataError, match="all 2 users of the panel have taken every eligible item"):
        rows_with_a_session(histories.take(np.array([0, 2])), is_eligible)
