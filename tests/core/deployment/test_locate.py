import json

import pytest
from pydantic import BaseModel
from trillium.deployment.locate import find_adapter
from trillium.errors import ConfigError, DataError
from trillium.runs import Run

STOP = ("stop",)
WARM_UP, FIRST, SECOND = (
    (stage, f"{stage}/adapter") for stage in ("warm_up", "train_0", "train_1")
)


class Settings(BaseModel):
    pass


def make_run(folder, *stages, **inputs):
    """Go through stages, each a name and the adapters that it leaves, until one says stop."""
    with Run.open(folder, Settings(), seed=0) as run:
        for name, *adapters in stages:
            if (name,) == STOP:
                raise KeyboardInterrupt
            stage = run.stage(name, inputs)
            if stage.is_due:
                for adapter in adapters:
                    (stage.work / adapter).mkdir(parents=True)
                    (stage.work / adapter / "adapter_config.json").write_text("{}")
                stage.finish(adapters)
    return folder


def stop_run(folder, *stages, **inputs):
    with pytest.raises(KeyboardInterrupt):
        make_run(folder, *stages, STOP, **inputs)
    return folder


def test_of_several_rounds_the_last_is_meant(tmp_path):
    rounds = [(f"train_{number}", f"train_{number}/adapter") for number in (2, 9, 10)]
    run = make_run(tmp_path / "math", WARM_UP, *rounds, ("after",))
    assert find_adapter(run) == run / "train_10" / "adapter"
    promoted = [
        (f"promote_{number}", f"round_{number}/policy", f"round_{number}/reference")
        for number in (0, 1)
    ]
    run = make_run(tmp_path / "rounds", ("start", "start"), *promoted)
    assert find_adapter(run) == run / "round_1" / "policy"


def test_a_round_of_an_earlier_command_is_not_the_result_of_the_last(tmp_path):
    make_run(tmp_path, WARM_UP, FIRST, SECOND, ("after",))
    make_run(tmp_path, WARM_UP, FIRST, ("after",))
    assert find_adapter(tmp_path) == tmp_path / "train_0" / "adapter"
    make_run(tmp_path, WARM_UP, FIRST, SECOND, ("after",))
    assert find_adapter(tmp_path) == tmp_path / "train_1" / "adapter"


@pytest.mark.parametrize("stages", [[WARM_UP, FIRST, SECOND], [("align", "adapter")]])
def test_a_run_stopped_with_other_settings_hands_out_nothing_of_the_old_ones(tmp_path, stages):
    make_run(tmp_path, *stages, rate="1e-5")
    stop_run(tmp_path, *stages[:-1], rate="1e-3")
    with pytest.raises(
        ConfigError, match="is a run whose last command has not come to its end"
    ) as error:
        find_adapter(tmp_path)
    old = stages[-1][1]
    assert "start it again, or name the adapter you mean" in str(error.value)
    assert old in str(error.value)
    assert find_adapter(tmp_path / old) == tmp_path / old
    make_run(tmp_path, *stages, rate="1e-3")
    assert find_adapter(tmp_path) == tmp_path / old


@pytest.mark.parametrize(
    "stages", [[WARM_UP, ("before",)], [WARM_UP, FIRST], [("align_1", "round_1/adapter")]]
)
def test_a_run_stopped_before_its_last_training_has_no_result_yet(tmp_path, stages):
    stop_run(tmp_path, *stages)
    with pytest.raises(ConfigError, match="is a run whose last command has not come to its end"):
        find_adapter(tmp_path)
    folder = tmp_path / stages[0][1]
    assert find_adapter(folder.parent) == find_adapter(folder) == folder


def test_a_run_that_does_not_say_which_stages_are_its_own_is_known_by_its_last_round(tmp_path):
    make_run(tmp_path, WARM_UP, FIRST, SECOND)
    path = tmp_path / "run.json"
    facts = json.loads(path.read_text())
    assert facts.pop("concluded") == ["warm_up", "train_0", "train_1"]
    path.write_text(json.dumps(facts))
    assert find_adapter(tmp_path) == tmp_path / "train_1" / "adapter"


def test_several_adapters_without_a_result_must_be_named(tmp_path):
    run = make_run(tmp_path, ("arms", "one", "two"))
    with pytest.raises(ConfigError, match=r"holds 2 adapters \(one, two\); name the one you mean"):
        find_adapter(run)
    assert find_adapter(run / "one") == run / "one"


def test_a_run_without_an_adapter_says_whether_it_is_at_its_end(tmp_path):
    with pytest.raises(ConfigError, match="last command has not come to its end; start it again"):
        find_adapter(stop_run(tmp_path / "stopped", ("sample",)))
    with pytest.raises(ConfigError, match="holds no adapter"):
        find_adapter(make_run(tmp_path / "ended", ("sample",)))
    (tmp_path / "ended" / "run.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        find_adapter(tmp_path / "ended")
