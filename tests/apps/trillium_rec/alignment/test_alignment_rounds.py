import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from trillium.errors import DataError
from trillium.objectives.configs import DPOConfig
from trillium.runs import Run
from trillium_rec.alignment import rounds as rounds_module
from trillium_rec.alignment.config import (
    AlignConfig,
    GroupConfig,
    ImitateConfig,
    SelectionConfig,
)
from trillium_rec.alignment.epoch import compare_sessions, train_epoch
from trillium_rec.alignment.pool import Drawing, draw_pool, session_code_logps
from trillium_rec.alignment.prompts import UserSamples, draw_share, plan_epoch
from trillium_rec.alignment.rounds import Materials, Snapshot, align_model
from trillium_rec.reward.config import HeadConfig, RewardConfig
from trillium_rec.reward.fitting import build_reward_model
from trillium_rec.splits import pack
from trillium_rec.trie import Trie

N_ITEMS = 14
DRAWING = Drawing(n_beams=6, n_groups=1, n_session=2)
CONFIG = AlignConfig(
    n_rounds=2,
    share=0.6,
    n_beams=6,
    n_session=2,
    batch_size=4,
    learning_rate=5e-3,
    objective=DPOConfig(beta=0.5),
)
EVERYTHING = torch.ones(N_ITEMS, dtype=torch.bool)


class Nothing(BaseModel):
    """A run without a configuration."""


@pytest.fixture(params=["lazy", "onerec"])
def setting(request, make_ids, make_lazy, make_onerec):
    """A seed model of each kind, what it is aligned with, and the model's maker."""
    ids = make_ids(N_ITEMS, (4, 5))
    make = {"lazy": make_lazy, "onerec": make_onerec}[request.param]
    config = RewardConfig(heads=(HeadConfig(column="like"),), d_model=8, n_places=2)
    reward = build_reward_model(config, N_ITEMS, None, seed=3)
    with torch.no_grad():
        reward.own.weight.normal_(generator=torch.Generator().manual_seed(0))
    random = np.random.default_rng(0)
    train = pack([random.choice(N_ITEMS, 5, replace=False) for _ in range(12)])
    samples = UserSamples(train, 6)
    materials = Materials(
        Trie.build(ids), EVERYTHING, samples, reward, {"reward": "r", "data": "d"}, seed=7
    )
    return make(ids), materials


def pool_of(model, materials, histories):
    return draw_pool(model, materials.trie, EVERYTHING, histories, materials.reward, DRAWING)


def test_the_likeliest_sessions_come_with_their_own_rewards_and_probabilities(setting):
    model, materials = setting
    histories = materials.samples.prompts(0)
    pool = pool_of(model, materials, histories)
    assert pool.is_whole.all()
    assert (pool.logps.diff(dim=1) <= 0).all()
    with torch.no_grad():
        codes = session_code_logps(model, histories, pool.sessions)
    torch.testing.assert_close(codes.sum(dim=(2, 3)), pool.logps, rtol=1e-4, atol=1e-4)
    alone = materials.reward.score(histories, pool.sessions[:, 3:4])
    torch.testing.assert_close(alone[:, 0], pool.rewards[:, 3])


def test_too_few_eligible_items_and_none_are_refused(setting):
    model, materials = setting
    for n_eligible in (0, 1):
        eligible = torch.arange(N_ITEMS) < n_eligible
        with pytest.raises(DataError, match=rf"align: {n_eligible} of 14 .*lower align\.n_session"):
            draw_pool(
                model,
                materials.trie,
                eligible,
                materials.samples.prompts(0),
                materials.reward,
                DRAWING,
            )


def test_sessions_that_cannot_be_filled_are_missing_and_not_bad(setting):
    model, materials = setting
    # One user has taken all but one of the eligible items, the other none.
    eligible = torch.arange(N_ITEMS) < 5
    histories = pack([np.array([0, 1, 2, 3]), np.array([9, 10])])
    pool = draw_pool(model, materials.trie, eligible, histories, materials.reward, DRAWING)
    assert pool.is_whole.any(dim=1).tolist() == [False, True]
    assert pool.rewards[0].max() == -math.inf


def compared_of(model, materials, config):
    rows = np.arange(materials.samples.n_samples)
    histories = materials.samples.prompts(1)
    pool = pool_of(model, materials, histories)
    generator = torch.Generator().manual_seed(0)
    return compare_sessions(model, pool, rows, histories, config, generator)


def test_an_epoch_moves_mass_from_losers_to_winners(setting):
    model, materials = setting
    config = CONFIG.model_copy(update={"imitates_log": False, "lam": 5.0})
    compared = compared_of(model, materials, config)
    first = train_epoch(model, materials.samples, compared, config, 0)
    assert first["prompts"] == 12
    again = train_epoch(model, materials.samples, compared, config, 0)
    assert again["loss_preference"] < first["loss_preference"]
    assert again["gain_winner"] > again["gain_losers"]
    assert "loss_log" not in again


def test_the_loss_of_a_step_is_a_mean_over_samples_with_preferences_for_some(setting):
    # L = (sum of L_NTP over all + lam * sum of L_DPO over those drawn) / samples: from the
    # gradient of one step, with the log left out, over one prompt in twelve samples.
    model, materials = setting
    config = CONFIG.model_copy(
        update={"imitates_log": False, "lam": 3.0, "batch_size": 12, "learning_rate": 1e-9}
    )
    whole = compared_of(model, materials, config)
    u = session_code_logps(model, whole.histories, whole.sessions).sum(dim=(2, 3))
    gap = u[0, 0] - u[0, 1]
    (3.0 * torch.nn.functional.softplus(-0.5 * (gap - gap.detach())) / 12).backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    one = type(whole)(
        whole.rows[:1],
        whole.histories.take(np.array([0])),
        whole.sessions[:1],
        whole.rewards[:1],
        whole.reference[:1],
    )
    seen = {}
    handle = torch.optim.Optimizer.step
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: seen.__setitem__(name, p.grad.clone())
        )
    train_epoch(model, materials.samples, one, config, 0)
    assert torch.optim.Optimizer.step is handle
    assert seen.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("objective", [None, ImitateConfig()])
def test_arms_without_a_reference_train_too(setting, objective):
    model, materials = setting
    config = CONFIG.model_copy(update={"objective": objective})
    compared = None if objective is None else compared_of(model, materials, config)
    metrics = train_epoch(model, materials.samples, compared, config, 0)
    assert metrics["loss_log"] > 0
    assert ("loss_preference" in metrics) == (objective is not None)


def test_several_losers_and_groups_keep_the_winner_first(setting):
    model, materials = setting
    three = CONFIG.model_copy(update={"selection": SelectionConfig(n_losers=3)})
    compared = compared_of(model, materials, three)
    assert compared.sessions.shape[1] == 4
    assert (compared.rewards[:, :1] > compared.rewards[:, 1:]).all()
    group = compared_of(model, materials, CONFIG.model_copy(update={"objective": GroupConfig()}))
    assert group.sessions.shape[1] == 6
    assert (group.rewards[:, :1] >= group.rewards).all()
    pool = pool_of(model, materials, materials.samples.prompts(1))
    assert torch.equal(
        group.rewards.sort(dim=1).values, pool.rewards[group.rows].sort(dim=1).values
    )


@pytest.mark.parametrize("objective", [DPOConfig(), GroupConfig()])
def test_prompts_that_give_no_preference_are_left_out_and_none_at_all_is_refused(
    setting, objective
):
    model, materials = setting
    config = CONFIG.model_copy(update={"objective": objective})
    histories = materials.samples.prompts(1)
    pool = pool_of(model, materials, histories)
    # The first prompt has one session only.
    pool.rewards[0, 1:] = -math.inf
    rows, generator = np.arange(12), torch.Generator().manual_seed(0)
    found = compare_sessions(model, pool, rows, histories, config, generator)
    assert found.rows.tolist() == list(range(1, 12))
    pool.rewards[:, 1:] = -math.inf
    with pytest.raises(DataError, match="align: none of 12 prompts gives a preference"):
        compare_sessions(model, pool, rows, histories, config, generator)


def test_every_sample_is_in_one_step_of_an_epoch_and_about_a_share_is_drawn():
    steps = plan_epoch(10, 4, 3)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sorted(np.concatenate(steps).tolist()) == list(range(10))
    drawn = draw_share(10_000, 0.01, 0)
    assert 60 < len(drawn) < 140
    assert len(draw_share(5, 1e-9, 0)) == 1


def run_rounds(setting, folder, config=CONFIG):
    model, materials = setting
    seed = folder / "seed"
    if not seed.exists():
        model.save_pretrained(seed)
    with Run.open(folder / "run", Nothing(), seed=0) as run:
        return align_model(run, "ipa", config, model, Snapshot(seed, "seed"), materials)


def digests(folder: Path):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in (".safetensors", ".json")
        and path.name != "run.json"
        and path.name != "environment.json"
    }


class Killed(BaseException):
    """Ends a run as a kill would: nothing is cleaned up by the code under test."""


@pytest.mark.parametrize("moment", ["draw_pool", "train_epoch", "compare_sessions"])
@pytest.mark.parametrize("calls", [1, 2])
def test_a_killed_alignment_ends_in_the_same_bytes(setting, tmp_path, monkeypatch, moment, calls):
    start = {name: value.clone() for name, value in setting[0].state_dict().items()}
    run_rounds(setting, tmp_path / "whole")
    setting[0].load_state_dict(start)
    real, count = getattr(rounds_module, moment), []

    def die_after_work(*arguments, **options):
        found = real(*arguments, **options)
        count.append(0)
        if len(count) == calls:
            raise Killed
        return found

    with monkeypatch.context() as patch:
        patch.setattr(rounds_module, moment, die_after_work)
        with pytest.raises(Killed):
            run_rounds(setting, tmp_path / "broken")
    run_rounds(setting, tmp_path / "broken")
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    assert len([name for name in digests(tmp_path / "whole") if "round_" in name]) >= 4


def test_each_round_takes_the_last_one_as_reference_and_start(setting, tmp_path):
    found = run_rounds(setting, tmp_path)
    model = setting[0]
    last = {name: value.clone() for name, value in model.state_dict().items()}
    rounds_module.load_weights(model, found[0].snapshot.folder)
    first = model.state_dict()
    assert any(not torch.equal(last[name], first[name]) for name in last)
    # The first loss of a round against its own start would be ln 2; over the epoch it stays near.
    assert abs(found[1].metrics["loss_preference"] - math.log(2)) < 0.2


def test_arms_that_begin_alike_share_what_was_drawn(setting, tmp_path, monkeypatch):
    model, materials = setting
    model.save_pretrained(tmp_path / "seed")
    drawn = []
    real = rounds_module.draw_pool

    def count(*arguments, **options):
        drawn.append(options["title"])
        return real(*arguments, **options)

    monkeypatch.setattr(rounds_module, "draw_pool", count)
    one = CONFIG.model_copy(update={"n_rounds": 1})
    with Run.open(tmp_path / "run", Nothing(), seed=0) as run:
        for name, objective in (("ipa", DPOConfig()), ("best", ImitateConfig())):
            config = one.model_copy(update={"objective": objective})
            align_model(run, name, config, model, Snapshot(tmp_path / "seed", "s"), materials)
    assert len(drawn) == 1
