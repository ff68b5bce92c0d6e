import pytest
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium_rec.config import RecConfig, check_align


def mistakes(*overrides):
    """What is wrong with the preset tiny and these overrides, a line each."""
    path = find_run_file("tiny", package="trillium_rec")
    with pytest.raises(ConfigError) as caught:
        load_config(RecConfig, path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["align.objective={name: dpo, beta: -1}"], "objective.beta = -1: must be greater than 0"),
        (["align.objective.beta=-1"], "objective.beta = -1: must be greater than 0"),
        (["align.objective={name: group, clip: 2}"], "objective.clip = 2: must be less than 1"),
        (["align.selection.loser=7"], "selection.loser = 7: must be a quantile from 0 to 1, or"),
        (["align.selection.loser=-3"], "selection.loser = -3: must be a quantile from 0 to 1"),
    ],
)
def test_one_mistake_is_one_sentence(overrides, sentence):
    (found,) = mistakes(*overrides)
    assert found.startswith(f"command line: align.{sentence}")


def test_an_unknown_objective_is_told_all_that_there_are():
    (found,) = mistakes("align.objective={name: nope}")
    assert "align.objective.name = 'nope': unknown (one of dpo, " in found
    assert found.endswith("imitate, group)")


@pytest.mark.parametrize("objective", ["{name: lipo, variant: softmax}", "{name: group}"])
def test_several_losers_are_taken_by_objectives_that_compare_them(objective):
    overrides = [f"align.objective={objective}", "align.selection.n_losers=3"]
    path = find_run_file("tiny", package="trillium_rec")
    config = load_config(RecConfig, path, overrides)
    check_align(config, config.align)
    assert config.align.selection.n_losers == 3
