import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium_code.ablation import AblationConfig, ArmResult, SeedResult
from trillium_code.ablation_table import render_table, tabulate, write_results
from trillium_code.label_quality import LabelQuality
from trillium_code.records import TaskResult

QUALITY = LabelQuality(8, 1, 1, 0, 5, 6)


def results(*shares):
    """One task per share, four samples each."""
    return tuple(
        TaskResult(f"t/{i}", "easy", (True,) * n + (False,) * (4 - n), ("",) * 4)
        for i, n in enumerate(shares)
    )


def seed(before, **arms):
    return SeedResult(
        results(*before),
        {
            name: ArmResult(QUALITY, 10, 0, results(*after) if after else (), (), 30.0)
            for name, after in arms.items()
        },
        100.0,
    )


SEEDS = {
    0: seed((0, 2, 4), codedpo=(2, 2, 4), plum=(0, 2, 4)),
    1: seed((0, 2, 2), codedpo=(2, 4, 2), plum=None),
}


def test_gains_are_paired_over_tasks_and_averaged_over_seeds():
    """Seed 0 gains .5 on one of three tasks, seed 1 on two of three: 1/6, 1/3, mean 1/4."""
    codedpo, plum = tabulate(SEEDS)
    assert codedpo.seed_gains == pytest.approx((1 / 6, 1 / 3))
    assert codedpo.gain.gain.mean == pytest.approx(0.25)
    assert codedpo.gain.n_tasks == 3
    assert codedpo.quality.n_pairs == 20
    assert codedpo.n_pairs == (10, 10)
    assert plum.gain is None


def test_an_arm_counts_the_seeds_that_finished_it():
    """A kill after seed 1's first arm: plum is known from seed 0 alone, codedpo from both."""
    partial = replace(SEEDS[1], arms={"codedpo": SEEDS[1].arms["codedpo"]})
    codedpo, plum = tabulate({0: SEEDS[0], 1: partial})
    assert codedpo.seed_gains == pytest.approx((1 / 6, 1 / 3))
    assert (plum.n_pairs, plum.seed_gains) == ((10,), (0.0,))


def test_plus_tests_have_columns_of_their_own_where_a_run_has_any(tmp_path):
    """One task of four samples: 2 right before, 4 after; by the plus tests 1 and 2."""
    arm = ArmResult(QUALITY, 10, 0, results(4), (), 30.0, results(2))
    found = {0: SeedResult(results(2), {"codedpo": arm}, 1.0, results(1))}
    (row,) = tabulate(found)
    assert (row.gain.gain.mean, row.plus.gain.mean) == (0.5, 0.25)
    write_results(AblationConfig(output=tmp_path, seeds=(0,)), found)
    (cells,) = json.loads((tmp_path / "ablation.json").read_text())["arms"]
    assert cells["after, plus tests"].startswith("0.500")
    assert tabulate(SEEDS)[0].plus is None


def test_table_and_files_show_every_arm(tmp_path):
    stream = StringIO()
    table = render_table(tabulate(SEEDS), n_tasks=3, n_seeds=2)
    Console(file=stream, width=200).print(table)
    assert "+0.250 [" in stream.getvalue() or "0.250 [" in stream.getvalue()
    config = AblationConfig(output=tmp_path, seeds=(0, 1))
    assert "codedpo" in write_results(config, SEEDS).read_text()
    (codedpo, plum) = json.loads((tmp_path / "ablation.json").read_text())["arms"]
    assert (codedpo["labels right"], codedpo["inverted"]) == ("0.800", "0.100")
    assert (plum["arm"], plum["gain"]) == ("plum", "n/a")


def test_an_arm_changes_what_it_names_and_nothing_else():
    path = find_run_file("ablation", package="trillium_code", command="ablate")
    config = load_config(AblationConfig, path)
    assert path.read_text().startswith("# trillium code ablate ablation")
    arms = {arm.name: arm.apply(config.run) for arm in config.arms}
    assert arms["dstc"].rank == config.run.rank.model_copy(update={"scorer": "dstc"})
    assert arms["dstc"].objective == config.run.objective
    assert arms["codedpo_kto"].objective.name == "kto"
    assert arms["codedpo_agreed"].rank.min_agreement == 3
    assert arms["codedpo"].rank.min_agreement == 1
    assert arms["codedpo_fast"].efficiency is not None
    assert arms["codedpo"].efficiency is None
    assert {name for name, arm in arms.items() if arm.evaluate.speed} == {"codedpo", "codedpo_fast"}
    assert arms["dstc"].evaluate.sampling == config.run.evaluate.sampling
    own = find_run_file("own", package="trillium_code", command="ablate")
    assert len(load_config(AblationConfig, own).arms) == 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("arms=[{name: a}, {name: a}]", "a occurs twice"),
        ("run.rounds=2", "arms share the samples of one round"),
        ("seeds=[1, 1]", "one occurs twice"),
        ("arms=[{name: A/b}]", "arms.0.name"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(AblationConfig, None, [override])


def test_a_task_that_one_seed_lost_counts_with_the_others():
    lost = replace(SEEDS[0], before=SEEDS[0].before[:2])
    (codedpo, _) = tabulate({0: lost, 1: SEEDS[1]})
    assert codedpo.gain.n_tasks == 3
