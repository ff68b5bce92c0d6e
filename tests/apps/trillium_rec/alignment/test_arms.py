import pytest
from trillium.objectives.configs import DPOConfig
from trillium_rec.alignment.ablation import AblationConfig
from trillium_rec.alignment.arms import ARMS
from trillium_rec.alignment.config import AlignConfig
from trillium_rec.config import RecConfig, check_align

BASE = AlignConfig(objective=DPOConfig(beta=0.7), n_rounds=2, n_beams=16)


def test_ipa_is_the_base_as_it_is():
    assert ARMS["ipa"].configure(BASE) == BASE


def test_every_arm_draws_as_much_and_trains_as_long_as_the_base():
    for arm in ARMS.values():
        config = arm.configure(BASE)
        assert (config.n_rounds, config.n_beams, config.share) == (2, 16, BASE.share)
        assert AlignConfig.model_validate(config.model_dump()) == config


def test_a_base_without_the_log_stops_no_arm():
    config = RecConfig(align=BASE.model_copy(update={"imitates_log": False}))
    for name, arm in ARMS.items():
        check_align(config, arm.configure(config.align), where=name)


def test_relatives_of_dpo_take_its_beta():
    found = {
        name: ARMS[name].configure(BASE).objective for name in ("s_dpo", "rdpo", "cpo", "cdpo")
    }
    assert {each.beta for each in found.values()} == {0.7}
    assert ARMS["ipo"].configure(BASE).objective.tau == 0.7
    assert found["cdpo"].label_smoothing == 0.1


def test_an_unknown_arm_is_refused_and_the_seed_model_is_always_there():
    assert AblationConfig(run=RecConfig(), arms=("ipa",)).arms == ("seed", "ipa")
    with pytest.raises(ValueError, match="dpp is no arm"):
        AblationConfig(run=RecConfig(), arms=("dpp",))
