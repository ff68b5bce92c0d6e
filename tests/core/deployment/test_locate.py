import json

import pytest
from trillium.deployment.locate import find_adapter
from trillium.errors import ConfigError


def make_run(folder, adapters, stages):
    for name in adapters:
        (folder / name).mkdir(parents=True)
        (folder / name / "adapter_config.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps({"stages": {stage: {} for stage in stages}}))
    return folder


def test_of_several_rounds_the_last_finished_one_is_meant(tmp_path):
    names = [f"train_{number}/adapter" for number in (2, 9, 10)]
    run = make_run(
        tmp_path, ["warm_up/adapter", *names], ["warm_up", "train_2", "train_9", "after"]
    )
    assert find_adapter(run) == run / "train_9" / "adapter"
    promoted = make_run(
        tmp_path / "rounds", [f"round_{n}/policy" for n in (0, 1)], ["promote_0", "promote_1"]
    )
    assert find_adapter(promoted) == promoted / "round_1" / "policy"


def test_several_adapters_without_a_result_must_be_named(tmp_path):
    run = make_run(tmp_path, ["one", "two"], [])
    with pytest.raises(ConfigError, match=r"holds 2 adapters \(one, two\)"):
        find_adapter(run)
    assert find_adapter(run / "one") == run / "one"


def test_a_run_without_an_adapter_says_that_it_has_none(tmp_path):
    with pytest.raises(ConfigError, match="is a run that has not finished training"):
        find_adapter(make_run(tmp_path, [], ["sample"]))
