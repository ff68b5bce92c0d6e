"""What no run can honour is refused where it is written."""

import math

import pytest
from pydantic import ValidationError
from trillium.config import load_config
from trillium.errors import ConfigError
from trillium.training.adapter_loop import LoopConfig
from trillium.training.config import TrainConfig
from trillium.training.online import OnlineConfig
from trillium.training.recipes.domains import DomainsConfig
from trillium.training.rounds import RoundsConfig

CONFIGS = (TrainConfig, LoopConfig, OnlineConfig, RoundsConfig, DomainsConfig)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_seed_is_one_that_every_generator_takes(config):
    assert config(seed=2**32 - 1).seed == 2**32 - 1
    for seed in (-1, 2**32, 10**14):
        with pytest.raises(ValidationError, match="seed"):
            config(seed=seed)


@pytest.mark.parametrize(
    ("config", "option"),
    [
        *((TrainConfig, name) for name in ("learning_rate", "warmup_steps", "weight_decay")),
        *((TrainConfig, name) for name in ("num_train_epochs", "stop_margin")),
        (OnlineConfig, "learning_rate"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(config, option):
    for value in (math.inf, math.nan, "inf"):
        with pytest.raises(ValidationError, match=f"{option}\n.*finite number"):
            config.model_validate({option: value})


def test_coefficients_of_domains_are_finite():
    with pytest.raises(ValidationError, match="coefficients"):
        DomainsConfig(coefficients=(0.0, math.inf))


@pytest.mark.parametrize("config", [TrainConfig, LoopConfig, OnlineConfig])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "inf"])
def test_clipping_cannot_be_off_and_what_never_clips_is_named(config, value):
    """transformers takes 0 for off, torch infinity; 1e9 is above any gradient that is worth it."""
    with pytest.raises(ValidationError, match="a finite number above 0; 1e9 in effect never clips"):
        config(max_grad_norm=value)
    assert config(max_grad_norm=1e9).max_grad_norm == 1e9


def test_an_override_is_refused_with_its_key():
    sentence = "train.*max_grad_norm = 'inf': must be a finite number above 0; 1e9"
    with pytest.raises(ConfigError, match=sentence.replace("train.*", "")):
        load_config(TrainConfig, None, ["max_grad_norm=inf"])
