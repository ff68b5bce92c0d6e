import math

import pytest
import torch
from torch.nn.functional import logsigmoid
from trillium.objectives import configs, recipe_configs
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.evaluate import evaluate
from trillium.objectives.metrics import RewardedPairs, pair_rewards, single_rewards

POLICY = PairLogps(
    torch.tensor([-10.0, -20.0], dtype=torch.float64, requires_grad=True),
    torch.tensor([-12.0, -16.0], dtype=torch.float64, requires_grad=True),
    torch.tensor([5, 10]),
    torch.tensor([4, 8]),
)
REFERENCE = PairLogps(
    torch.tensor([-11.0, -22.0], dtype=torch.float64),
    torch.tensor([-11.0, -19.0], dtype=torch.float64),
    POLICY.n_chosen,
    POLICY.n_rejected,
)


@pytest.mark.parametrize(
    ("config", "chosen", "rejected"),
    [
        (configs.DPOConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
        (configs.DPOConfig(beta=0.5, reference_free=True), [-5.0, -10.0], [-6.0, -8.0]),
        (configs.HingeConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
        (configs.HingeConfig(beta=0.5, normalize_by_ref=False), [-5.0, -10.0], [-6.0, -8.0]),
        (configs.RDPOConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
        (configs.RPOConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
        (configs.IPOConfig(tau=0.5), [0.1, 0.1], [-0.125, 0.1875]),
        (configs.IPOConfig(tau=0.5, normalize="none"), [0.5, 1.0], [-0.5, 1.5]),
        (configs.LNDPOConfig(beta=2.0), [0.4, 0.4], [-0.5, 0.75]),
        (configs.SimPOConfig(beta=2.0), [-4.0, -4.0], [-6.0, -4.0]),
        (configs.CPOConfig(beta=0.5), [-5.0, -10.0], [-6.0, -8.0]),
        (configs.FlexDPOConfig(beta_pos=0.5, beta_neg=0.25), [0.5, 1.0], [-0.25, 0.75]),
        (configs.MODPOConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
        (configs.SPPOConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
        (configs.GPOConfig(beta=0.5), [0.5, 1.0], [-0.5, 1.5]),
    ],
    ids=str,
)
def test_rewards_are_what_the_objective_compares(
    config: configs.PairConfig, chosen: list[float], rejected: list[float]
) -> None:
    rewards = pair_rewards(config, POLICY, REFERENCE)
    assert rewards.chosen.tolist() == pytest.approx(chosen)
    assert rewards.rejected.tolist() == pytest.approx(rejected)


def test_fdpo_rewards_are_beta_times_f_prime() -> None:
    config = configs.FDPOConfig(divergence="forward_kl", beta=0.5)
    rewards = pair_rewards(config, POLICY, REFERENCE)
    assert rewards.chosen.tolist() == pytest.approx([-0.5 * math.exp(-1), -0.5 * math.exp(-2)])


@pytest.mark.parametrize("config", [configs.ORPOConfig(), configs.ASFTConfig()])
def test_odds_objectives_are_rewarded_by_log_odds(config: configs.PairConfig) -> None:
    p = math.exp(-2)
    rewards = pair_rewards(config, POLICY, None)
    assert rewards.chosen.tolist() == pytest.approx([math.log(p / (1 - p))] * 2)


def test_margins_and_accuracy_follow_the_rewards() -> None:
    rewards = pair_rewards(configs.DPOConfig(beta=1.0), POLICY, REFERENCE)
    assert rewards.margins.tolist() == [2.0, -1.0]
    assert rewards.is_right.tolist() == [True, False]


def test_rewards_carry_no_gradient() -> None:
    rewards = pair_rewards(configs.FDPOConfig(divergence="js"), POLICY, REFERENCE)
    assert not rewards.chosen.requires_grad
    policy = SingleLogps(torch.tensor([-3.0], requires_grad=True))
    reward = single_rewards(configs.KTOConfig(beta=0.5), policy, SingleLogps(torch.tensor([-5.0])))
    assert reward.tolist() == [1.0]
    assert not reward.requires_grad


@pytest.mark.parametrize(
    ("config", "saturates"),
    [
        (configs.DPOConfig(), True),
        (configs.DPOConfig(reference_free=True), True),
        (configs.DPOConfig(label_smoothing=0.1), False),
        (configs.IPOConfig(), False),
        (configs.HingeConfig(), False),
        (configs.RDPOConfig(), False),
        (configs.FDPOConfig(divergence="js"), True),
        (configs.LNDPOConfig(), True),
        (configs.RPOConfig(), False),
        (configs.SimPOConfig(), False),
        (configs.ORPOConfig(), False),
        (configs.CPOConfig(), False),
        (configs.CPOConfig(alpha=0.0), True),
        (configs.CPOConfig(alpha=0.0, loss_type="hinge"), False),
        (configs.ASFTConfig(), False),
        (configs.FlexDPOConfig(), True),
        (configs.FlexDPOConfig(sft_coef=0.1), False),
        (recipe_configs.DegreeConfig(), False),
    ],
    ids=str,
)
def test_an_objective_that_saturates_is_the_logistic_loss_of_its_margin(
    config: RewardedPairs, saturates: bool
) -> None:
    assert config.saturates == saturates
    computed = {"degree_logits": torch.zeros(2, 3, dtype=torch.float64)}
    columns = {"degree_label": torch.tensor([0, 2])}
    losses = evaluate(config, POLICY, REFERENCE, columns=columns, computed=computed)
    logistic = -logsigmoid(pair_rewards(config, POLICY, REFERENCE).margins)
    assert torch.allclose(losses, logistic, rtol=1e-12, atol=0) == saturates


def test_a_smoothing_that_each_row_brings_does_not_saturate() -> None:
    assert not configs.DPOConfig(smoothing_from="row").saturates
