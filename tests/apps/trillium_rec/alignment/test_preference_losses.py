import math

import pytest
import torch
from trillium.errors import ConfigError, DataError
from trillium.objectives.configs import DPOConfig, IPOConfig, ORPOConfig, SimPOConfig
from trillium.objectives.recipe_configs import LiPOConfig
from trillium.objectives.table import OBJECTIVES
from trillium_rec.alignment.config import AlignConfig, GroupConfig, ImitateConfig
from trillium_rec.alignment.losses import SessionScores, preference_losses, scored_codes
from trillium_rec.config import RecConfig, check_align

# Two prompts, three sessions, two places, two levels.
SHAPE = (2, 3, 2, 2)


def make_scores(*, seed=0, is_scored=None, n_sessions=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (SHAPE[0], n_sessions, *SHAPE[2:])
    policy = (-3 * torch.rand(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    reference = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    rewards = torch.rand(shape[:2], generator=generator, dtype=torch.float64)
    rewards = rewards.sort(dim=1, descending=True).values
    scored = torch.ones(shape, dtype=torch.bool) if is_scored is None else is_scored
    return SessionScores(policy, reference, scored, rewards)


def test_a_pair_costs_what_the_paper_says():
    scores = make_scores()
    u = (scores.policy - scores.reference).sum(dim=(2, 3))
    expected = torch.nn.functional.softplus(-0.3 * (u[:, 0] - u[:, 1]))
    torch.testing.assert_close(preference_losses(DPOConfig(beta=0.3), scores), expected)


def test_a_policy_that_is_still_the_snapshot_costs_ln_2():
    scores = make_scores()
    same = SessionScores(scores.reference, scores.reference, scores.is_scored, scores.rewards)
    assert preference_losses(DPOConfig(), same).tolist() == pytest.approx([math.log(2)] * 2)
    softmax = LiPOConfig(variant="softmax", beta=0.3)
    assert preference_losses(softmax, same).tolist() == pytest.approx([math.log(3)] * 2)


def test_s_dpo_is_one_softmax_over_winner_and_losers():
    # arXiv 2406.09215, Eq. 6: -ls(-log sum_l exp(beta u_l - beta u_w)).
    scores = make_scores()
    u = 0.3 * (scores.policy - scores.reference).sum(dim=(2, 3))
    inner = (u[:, 1:] - u[:, :1]).logsumexp(dim=1)
    expected = -torch.nn.functional.logsigmoid(-inner)
    found = preference_losses(LiPOConfig(variant="softmax", beta=0.3), scores)
    torch.testing.assert_close(found, expected)
    two = make_scores(n_sessions=2)
    torch.testing.assert_close(
        preference_losses(LiPOConfig(variant="softmax", beta=0.3), two),
        preference_losses(DPOConfig(beta=0.3), two),
    )


def test_means_are_over_the_codes_that_count():
    is_scored = torch.ones(SHAPE, dtype=torch.bool)
    is_scored[:, 0, 0] = False
    scores = make_scores(is_scored=is_scored)
    chosen = scores.policy[:, 0, 1].sum(dim=1) / 2
    rejected = scores.policy[:, 1].sum(dim=(1, 2)) / 4
    z = 2.0 * (chosen - rejected - 0.25)
    torch.testing.assert_close(
        preference_losses(SimPOConfig(), scores), torch.nn.functional.softplus(-z)
    )
    u = scores.policy - scores.reference
    gap = u[:, 0, 1].sum(dim=1) - u[:, 1].sum(dim=(1, 2))
    found = preference_losses(IPOConfig(tau=0.1, normalize="none"), scores)
    torch.testing.assert_close(found, (gap - 5).square())


def test_codes_that_do_not_count_get_no_gradient():
    is_scored = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6
    is_scored[:, :, 1, 1] = True
    for config in (DPOConfig(), LiPOConfig(variant="softmax"), GroupConfig()):
        scores = make_scores(is_scored=is_scored)
        preference_losses(config, scores).sum().backward()
        assert scores.policy.grad[~is_scored].abs().max() == 0
        assert scores.policy.grad[is_scored].abs().max() > 0


def test_imitation_is_minus_the_mean_over_the_winners_items():
    scores = make_scores()
    expected = -scores.policy[:, 0].sum(dim=(1, 2)) / 2
    torch.testing.assert_close(preference_losses(ImitateConfig(), scores), expected)


def test_the_group_loss_pushes_sessions_by_their_advantage():
    scores = make_scores()
    start = SessionScores(
        scores.reference.clone().requires_grad_(),
        scores.reference,
        scores.is_scored,
        scores.rewards,
    )
    preference_losses(GroupConfig(), start).sum().backward()
    # At the snapshot the ratio is 1: the gradient of a code is -A / (codes * sessions).
    centred = scores.rewards - scores.rewards.mean(dim=1, keepdim=True)
    advantage = centred / centred.square().mean(dim=1, keepdim=True).sqrt()
    expected = (-advantage / (4 * 3))[..., None, None].expand(SHAPE)
    torch.testing.assert_close(start.policy.grad, expected)


def test_the_group_loss_stops_at_the_clip_and_pays_for_divergence():
    scores = make_scores()
    far = SessionScores(
        (scores.reference + 0.5).requires_grad_(),
        scores.reference,
        scores.is_scored,
        scores.rewards,
    )
    preference_losses(GroupConfig(kl_weight=0.0), far).sum().backward()
    # exp(0.5) is beyond 1.2: what has a positive advantage is pushed no further.
    is_good = scores.rewards > scores.rewards.mean(dim=1, keepdim=True)
    assert far.policy.grad[is_good].abs().max() == 0
    assert far.policy.grad[~is_good].abs().min() > 0
    flat = SessionScores(
        scores.reference + 0.5, scores.reference, scores.is_scored, torch.ones(2, 3)
    )
    cost = math.exp(-0.5) + 0.5 - 1
    found = preference_losses(GroupConfig(kl_weight=2.0), flat)
    assert found.tolist() == pytest.approx([2 * cost] * 2)


def test_shared_prefixes_are_left_out_place_by_place():
    winner = [[1, 2, 3], [4, 5, 6]]
    loser = [[1, 2, 9], [7, 5, 6]]
    codes = torch.tensor([[winner, loser]])
    found = scored_codes(codes, mask_shared=True)[0]
    # Place 1 shares two codes; at place 2 the first differs, so that nothing after it is shared.
    assert found[1].tolist() == [[False, False, True], [True, True, True]]
    assert found[0].tolist() == found[1].tolist()
    assert scored_codes(codes, mask_shared=False).all()
    # With two losers the winner keeps what one of them does not share.
    third = [[1, 8, 8], [4, 5, 6]]
    three = scored_codes(torch.tensor([[winner, loser, third]]), mask_shared=True)[0]
    assert three[0].tolist() == [[False, True, True], [True, True, True]]
    assert three[2].tolist() == [[False, True, True], [False, False, False]]


def trainable_objectives():
    """Every objective that a run file may name, and two options that ask for more."""
    found = [
        AlignConfig(objective={"name": name}).objective
        for name, row in OBJECTIVES.items()
        if row.is_trainable
    ]
    return [*found, DPOConfig(smoothing_from="row"), ORPOConfig(nll="sequence")]


@pytest.mark.parametrize("objective", trainable_objectives(), ids=lambda each: each.name)
def test_an_objective_is_refused_beforehand_exactly_where_sessions_cannot_feed_it(objective):
    config = RecConfig(align=AlignConfig(objective=objective))
    try:
        preference_losses(objective, make_scores())
    except DataError:
        with pytest.raises(ConfigError, match=rf"^align: objective {objective.name} needs"):
            check_align(config, config.align)
    else:
        check_align(config, config.align)
