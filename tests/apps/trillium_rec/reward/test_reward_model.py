import math

import numpy as np
import pytest
import torch
from trillium.errors import DataError
from trillium_rec.fit import FitConfig
from trillium_rec.reward.config import HeadConfig, RewardConfig
from trillium_rec.reward.examples import RewardExamples
from trillium_rec.reward.fitting import (
    build_reward_model,
    calibrate,
    reward_batch,
    split_users,
    train_reward_model,
)
from trillium_rec.reward.model import RewardModel
from trillium_rec.reward.quality import measure_reward, predict
from trillium_rec.splits import pack

N_ITEMS = 12


def make_config(**changes):
    given = {"heads": (HeadConfig(column="like"), HeadConfig(column="view")), "n_places": 3}
    fit = FitConfig(
        n_epochs=30, batch_size=32, learning_rate=0.01, warmup_steps=5, eval_every=1, patience=30
    )
    return RewardConfig(**{**given, "d_model": 16, "fit": fit, "dropout": 0.0, **changes})


def make_examples(n_users=40, seed=0):
    """Users like the half of the items that their history is from; views are a coin."""
    random = np.random.default_rng(seed)
    histories, lists, labels, users = [], [], [], []
    for number in range(n_users * 4):
        half = number // 4 % 2
        histories.append(random.choice(6, 3, replace=False) + 6 * half)
        items = random.choice(N_ITEMS, 3, replace=False)
        lists.append(items)
        likes = (items // 6 == half).astype(np.float32)
        labels.append(np.stack([likes, random.random(3) < 0.5], axis=1))
        users.append(f"u{number // 4}")
    return RewardExamples(
        tuple(users), pack(histories), np.stack(lists), np.stack(labels).astype(np.float32)
    )


@pytest.fixture(params=["target_aware", "pooled"])
def model(request):
    model = build_reward_model(make_config(architecture=request.param), N_ITEMS, None, seed=1)
    return model.train(False)


HISTORY = torch.tensor([[3, 4, -1], [7, -1, -1]])
LISTS = torch.tensor([[[0, 1, 2], [2, 1, -1]], [[5, 6, 7], [8, 9, 10]]])


def test_a_list_is_valued_alike_whatever_other_lists_and_users_are_in_the_batch(model):
    whole = model.rewards(HISTORY, LISTS)
    for user in range(2):
        for beam in range(2):
            alone = model.rewards(HISTORY[user : user + 1], LISTS[user : user + 1, beam : beam + 1])
            assert alone.item() == pytest.approx(whole[user, beam].item(), abs=1e-5)


def test_padding_of_history_and_list_changes_nothing(model):
    longer = torch.cat([HISTORY, torch.full((2, 4), -1)], dim=1)
    torch.testing.assert_close(model.rewards(longer, LISTS), model.rewards(HISTORY, LISTS))
    shorter = model.rewards(HISTORY[:1], LISTS[:1, 1:, :2])
    torch.testing.assert_close(shorter[0, 0], model.rewards(HISTORY, LISTS)[0, 1])


def test_an_empty_history_and_an_empty_list_give_numbers_and_minus_infinity(model):
    found = model.rewards(torch.full((1, 2), -1), torch.tensor([[[1, 2, 3], [-1, -1, -1]]]))
    assert torch.isfinite(found[0, 0])
    assert found[0, 1] == -math.inf


def test_the_reward_is_the_weighted_mean_of_log_gains_over_the_rates(model):
    model.config.rates, model.config.weights = [0.2, 0.5], [3.0, 1.0]
    chance = model.probabilities(HISTORY, LISTS)
    expected = (3 * (chance[..., 0] / 0.2).log() + (chance[..., 1] / 0.5).log()) / 4
    torch.testing.assert_close(model.rewards(HISTORY, LISTS), expected)


def test_the_sum_pooled_towers_read_the_list_as_one():
    config = make_config(pooling="sum")
    model = build_reward_model(config, N_ITEMS, None, seed=1).train(False)
    assert model.logits(HISTORY, LISTS).shape == (2, 2, 1, 2)
    examples = make_examples(2)
    loss = model.losses(reward_batch(examples, 50))
    logits, labels = predict(model, examples)
    # Labels are shares of the list's items; the loss a sum over heads of means over lists.
    assert labels[0].tolist() == pytest.approx(examples.labels[0].mean(axis=0).tolist())
    by_hand = (np.logaddexp(0, logits) - labels * logits).mean(axis=0).sum()
    assert loss.total.item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("architecture", ["target_aware", "pooled"])
def test_a_taste_is_learned_and_a_coin_is_not(architecture, tmp_path):
    config = make_config(architecture=architecture)
    model = build_reward_model(config, N_ITEMS, None, seed=0)
    train = make_examples()
    train_reward_model(config, model, train, tmp_path, seed=0)
    unseen = make_examples(seed=9)
    popularity = np.ones(N_ITEMS, np.int64)
    like, view = measure_reward(model, unseen, train=train, popularity=popularity).heads
    assert like.auc > 0.9
    assert 0.35 < like.baseline_auc < 0.65
    assert 0.35 < view.auc < 0.65
    liked, other = torch.tensor([[[0, 1, 2], [6, 7, 8]]]), pack([np.array([3, 4, 5])])
    rewards = model.score(other, liked)[0]
    assert rewards[0] > rewards[1] + 0.2


def test_a_saved_model_gives_the_same_rewards(tmp_path):
    config = make_config(fit=FitConfig(n_epochs=1, batch_size=32, eval_every=1))
    content = np.random.default_rng(0).normal(size=(N_ITEMS, 5)).astype(np.float32)
    model = build_reward_model(config, N_ITEMS, content, seed=0)
    train_reward_model(config, model, make_examples(), tmp_path / "fit", seed=0)
    model.save_pretrained(tmp_path / "model")
    loaded = RewardModel.from_pretrained(tmp_path / "model").train(False)
    assert torch.equal(loaded.rewards(HISTORY, LISTS), model.rewards(HISTORY, LISTS))
    assert loaded.config.rates == model.config.rates


def test_calibration_undoes_a_wrong_scale_and_never_turns_the_ranking_round(tmp_path):
    config = make_config()
    model = build_reward_model(config, N_ITEMS, None, seed=0)
    train_reward_model(config, model, make_examples(), tmp_path, seed=0)
    examples = make_examples(seed=9)
    calibrate(model, examples)
    before = model.config.slopes[0]
    with torch.no_grad():
        model.towers[0].narrow.weight *= 4
        model.towers[0].narrow.bias *= 4
    calibrate(model, examples)
    assert model.config.slopes[0] == pytest.approx(before / 4, rel=0.05)
    with torch.no_grad():
        model.towers[0].narrow.weight *= -1
    calibrate(model, examples)
    assert model.config.slopes[0] == 0.0


def test_a_head_that_never_happens_in_training_and_a_single_user_are_refused(tmp_path):
    config, examples = make_config(), make_examples(4)
    examples.labels[..., 1] = 0
    model = build_reward_model(config, N_ITEMS, None, seed=0)
    with pytest.raises(DataError, match="view happens in none of"):
        train_reward_model(config, model, examples, tmp_path, seed=0)
    with pytest.raises(DataError, match="1 user has lists"):
        split_users(examples.take(np.arange(4)), seed=0)


def test_no_user_is_on_both_sides_of_the_split():
    train, valid = split_users(make_examples(10), seed=3)
    assert not set(train.users) & set(valid.users)
    assert len(set(valid.users)) == 2
