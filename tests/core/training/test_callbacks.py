"""What watches a run says only what is so of its objective."""

import pytest
from transformers import TrainerControl, TrainerState
from trillium.objectives.configs import CPOConfig, DPOConfig, FlexDPOConfig, LNDPOConfig
from trillium.objectives.recipe_configs import SLiCConfig
from trillium.training.align import AlignConfig, align
from trillium.training.callbacks import WarnOnSaturation
from trillium.training.config import TrainConfig, training_arguments


@pytest.mark.parametrize(
    ("objective", "remedy"),
    [
        (DPOConfig(), "train.learning_rate or objective.beta, or set train.stop_margin"),
        (DPOConfig(reference_free=True), "train.learning_rate or objective.beta"),
        (LNDPOConfig(), "train.learning_rate or objective.beta, or set train.stop_margin"),
        (CPOConfig(alpha=0.0), "train.learning_rate or objective.beta"),
        (
            FlexDPOConfig(),
            "train.learning_rate or objective.beta_pos or objective.beta_neg, or set "
            "train.stop_margin",
        ),
    ],
    ids=str,
)
def test_saturation_is_said_once_with_options_that_the_objective_has(
    objective, remedy, tmp_path, caplog
):
    arguments = training_arguments(TrainConfig(), tmp_path, use_cpu=True)
    watcher = WarnOnSaturation(objective)
    for step, margin in ((1, 19.0), (2, 21.0), (3, 30.0)):
        state = TrainerState(global_step=step)
        watcher.on_log(arguments, state, TrainerControl(), {"rewards/margins": margin})
    assert caplog.messages == [
        "step 2: the mean reward margin is 21 (beyond 20 pairs have no gradient); lower " + remedy
    ]


@pytest.mark.parametrize(
    ("objective", "is_warned"),
    [(DPOConfig(reference_free=True, beta=10.0), True), (SLiCConfig(imitate="chosen"), False)],
    ids=str,
)
def test_only_an_objective_that_saturates_is_watched(
    objective, is_warned, trees_for, policy, tmp_path, caplog
):
    """Both margins are far above 20: sums of log-probabilities over responses of any length."""
    trees = sorted(trees_for(objective, 16), key=lambda tree: len(tree.path(0).ids))[:2]
    config = AlignConfig(objective=objective, train=TrainConfig(learning_rate=1e-6))
    result = align(config, trees, policy(), None, tmp_path)
    assert result.metrics[0]["rewards/margins"] > 20
    assert any("have no gradient" in message for message in caplog.messages) == is_warned
