"""Several methods on one taught tiny policy: what is shared, what is owned, what the table says."""

import json
from dataclasses import replace

import pytest
import yaml
from trillium.config import load_config
from trillium.errors import ConfigError, DataError
from trillium.manifest import read_manifest
from trillium_math.agent.trajectory import Trajectory
from trillium_math.arms import ArmResult, ArmsConfig, SeedResult, finished_arms, run_arms
from trillium_math.arms_table import holm, render_tables, split_results, tabulate, write_results

from .taught_math_policy import furnish

pytestmark = pytest.mark.e2e

SELECT = {"n_pairs": 4, "loser_outcomes": ["answered", "turn_too_long", "turn_limit"]}
TRAIN = {"learning_rate": 3.0e-3, "num_train_epochs": 2, "per_device_train_batch_size": 2}
STEP = {"name": "step_dpo", "select": SELECT, "n_collected": 3, "n_rectified": 4, "train": TRAIN}
ARMS = [
    {"name": "imitate", "method": {"name": "rejection", "select": SELECT}},
    {"name": "m_dpo", "method": {"name": "m_dpo", "select": SELECT, "train": TRAIN}},
    {"name": "steps", "method": {**STEP, "localiser": {"name": "oracle"}}},
    {"name": "silent", "method": {**STEP, "localiser": {"name": "judge", "max_new_tokens": 4}}},
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = furnish(tmp_path_factory.mktemp("arms"))
    run = yaml.safe_load((folder / "run.yaml").read_text())
    del run["method"], run["output"]
    run |= {"n_rounds": 1, "n_from_previous": 0}
    whole = {"output": str(folder / "arms"), "seeds": [0], "run": run, "arms": ARMS}
    (folder / "arms.yaml").write_text(yaml.safe_dump(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILLIUM_CACHE", str(folder / "cache"))
        config = load_config(ArmsConfig, folder / "arms.yaml")
        seen = []
        results = run_arms(config, lambda so_far: seen.append(list(so_far[0].arms)))
        assert seen == [["imitate", "m_dpo", "steps", "silent"][:n] for n in (1, 2, 3, 4)]
        stages = read_manifest(folder / "arms" / "seed_0").stages
        assert run_arms(config) == results
        assert read_manifest(folder / "arms" / "seed_0").stages == stages
    return config, results


def test_arms_share_the_warm_up_and_one_sampling(compared):
    config, _ = compared
    stages = read_manifest(config.output / "seed_0").stages
    assert sum(name.startswith("warm_up") for name in stages) == 1
    assert sum(name.startswith("sample_") for name in stages) == 1
    for arm in ("imitate", "m_dpo", "steps"):
        trained = stages[f"train_0_{arm}"]
        assert trained.inputs["start"] == stages["train_0_m_dpo"].inputs["start"]
        assert next(iter(trained.outputs)) == f"{arm}/train_0/adapter"
    adapters = {stages[f"train_0_{arm}"].outputs[f"{arm}/train_0/adapter"]
                for arm in ("imitate", "m_dpo", "steps")}  # fmt: skip
    assert len(adapters) == 3


def test_every_arm_keeps_to_the_tokens_of_the_shared_sampling(compared):
    config, results = compared
    stages = read_manifest(config.output / "seed_0").stages
    budget = stages["sample_0"].counts["tokens"]
    arms = results[0].arms
    assert arms["imitate"].sampled == arms["m_dpo"].sampled == budget
    # What is begun within the budget is finished: one chunk more at most.
    counts = stages["mend_0_steps"].counts
    assert arms["steps"].sampled == counts["collected_tokens"] + counts["sampled_tokens"]
    assert arms["steps"].sampled <= 2 * budget


def test_an_arm_without_anything_to_learn_from_is_shown_as_such(compared):
    config, results = compared
    assert results[0].arms["silent"].after == ()
    rows = {row.name: row for row in tabulate(results)}
    assert rows["silent"].gain is None
    assert rows["m_dpo"].gain.n_tasks == 1
    write_results(config, results)
    saved = json.loads((config.output / "arms.json").read_text())
    assert [row["gain"] == "n/a" for row in saved["arms"]] == [False, False, False, True]
    assert "Holm" in (config.output / "report.html").read_text()
    assert [table.row_count for table in render_tables(results)] == [4]


def test_what_is_finished_reads_the_same_from_the_files(compared, tmp_path):
    config, results = compared
    found = finished_arms(config.model_copy(update={"seeds": (0, 1)}))
    assert list(found) == [0]
    arms = {name: arm for name, arm in results[0].arms.items() if name != "silent"}
    assert found[0] == replace(results[0], arms=arms)
    with pytest.raises(DataError, match="no arm is finished yet in any of seeds"):
        finished_arms(config.model_copy(update={"output": tmp_path}))


def test_an_arm_that_one_seed_lacks_is_about_the_other_seeds(compared):
    _, results = compared
    shorter = replace(results[0], arms={"imitate": results[0].arms["imitate"]})
    rows = {row.name: row for row in tabulate({0: results[0], 1: shorter})}
    assert [len(rows[name].n_trees) for name in ("imitate", "m_dpo", "steps")] == [2, 1, 1]
    assert rows["imitate"].gain.n_tasks == 1
    assert rows["m_dpo"].gain.n_tasks == 1


def test_held_out_problems_of_two_kinds_have_a_table_each(compared):
    config, results = compared
    assert split_results(results) == {}
    (id,) = {one.problem_id for one in results[0].before}
    seed = results[0]
    other = {name: replace(arm, after=(*arm.after, *_renamed(arm.after)))
             for name, arm in seed.arms.items()}  # fmt: skip
    before = (*seed.before, *_renamed(seed.before))
    mixed = {0: replace(seed, before=before, arms=other, practised=frozenset({id}))}
    parts = split_results(mixed)
    assert [len(part[0].before) for part in parts.values()] == [len(seed.before)] * 2
    assert {one.problem_id for one in next(iter(parts.values()))[0].before} == {id}
    assert [table.row_count for table in render_tables(mixed)] == [4, 4, 4]
    write_results(config.model_copy(update={"output": config.output / "mixed"}), mixed)
    saved = json.loads((config.output / "mixed" / "arms.json").read_text())
    assert [len(rows) for rows in saved["further"].values()] == [4, 4]


def _renamed(found):
    return tuple(replace(one, problem_id="new") for one in found)


def test_an_arm_trains_what_its_method_trains_alone(compared, tmp_path):
    """Arms do not see one another: in another order they end in the same bytes."""
    config, results = compared
    turned = config.model_copy(
        update={"output": tmp_path / "turned", "arms": (config.arms[1], config.arms[0])}
    )
    again = run_arms(turned)
    for arm in ("imitate", "m_dpo"):
        file = f"seed_0/{arm}/train_0/adapter/adapter_model.safetensors"
        assert (turned.output / file).read_bytes() == (config.output / file).read_bytes()
        assert again[0].arms[arm].after == results[0].arms[arm].after


def test_arms_that_cannot_be_compared_are_refused():
    arm = "{name: a, method: {name: m_dpo}}"
    with pytest.raises(ConfigError, match="a occurs twice"):
        load_config(ArmsConfig, None, [f"arms=[{arm}, {arm}]"])
    with pytest.raises(ConfigError, match="one occurs twice"):
        load_config(ArmsConfig, None, [f"arms=[{arm}]", "seeds=[1, 1]"])
    config = load_config(
        ArmsConfig, None, ["arms=[{name: a, method: {name: m_dpo, objective: {name: kto}}}]"]
    )
    with pytest.raises(ConfigError, match="kto does not fit method m_dpo"):
        run_arms(config)


def test_a_problem_that_seeds_share_is_one_problem_and_others_are_others():
    """p is gained with one seed of two, q and r belong to a seed each: (1/2 + 1 + 0) / 3."""

    def rolled(**rewards):
        return tuple(
            Trajectory(f"{id}#0", id, "1", (), (1, 2), ((1, 2),), "answered", "1", reward)
            for id, reward in rewards.items()
        )

    def seed(before, after):
        return SeedResult(before, {"arm": ArmResult(after, 1, 1, 1, 1.0)}, 0.0)

    first = seed(rolled(p=0.0, q=0.0), rolled(p=1.0, q=1.0))
    second = seed(rolled(p=0.0, r=1.0), rolled(p=0.0, r=1.0))
    (row,) = tabulate({0: first, 1: second})
    assert (row.gain.n_tasks, row.gain.n_better) == (3, 2)
    assert row.gain.gain.mean == pytest.approx(0.5)
    # The same seed three times says nothing that it did not say once.
    assert tabulate(dict.fromkeys(range(3), first))[0].gain == tabulate({0: first})[0].gain


def test_holm_compares_the_smallest_with_the_strictest_level():
    """m = 4 at 5 %: 0.0125, 0.0167, 0.025, 0.05; the list ends at the first that is larger."""
    values = {"a": 0.012, "b": 0.016, "c": 0.03, "d": 0.04}
    assert holm(values) == {"a", "b"}
    assert holm({"a": 0.013, "b": 0.001}) == {"a", "b"}
    assert holm({"a": 0.06, "b": 0.001}) == {"b"}
    assert holm({}) == frozenset()
