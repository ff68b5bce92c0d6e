import pytest
import torch
from trillium.config import load_config
from trillium.manifest import StageRecord
from trillium_code.config import CodeConfig
from trillium_code.estimate import Work, machine_rates, plan_work, seconds_left
from trillium_code.preparation import prepare_tasks

WORK = [Work("a", "sample", 100.0), Work("b", "sample", 300.0), Work("c", "align", 50.0)]
RATES = {"sample": 10.0, "align": 5.0}


def record(seconds, **counts):
    return StageRecord(input_hash="", inputs={}, outputs={}, seconds=seconds, counts=counts)


def test_before_anything_is_measured_the_given_rates_hold():
    assert seconds_left(WORK, {}, RATES) == pytest.approx(10 + 30 + 10)


def test_a_gpu_is_expected_to_be_faster_at_everything(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = machine_rates()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = machine_rates()
    assert here.keys() == there.keys()
    assert all(there[kind] > here[kind] for kind in here)


def test_a_measured_kind_goes_as_fast_as_it_went_and_others_scale_with_it():
    """a took 20 s instead of 10: b takes 60, and c, of another kind, 10 * 2."""
    assert seconds_left(WORK, {"a": 20.0}, RATES) == pytest.approx(60 + 20)


def test_nothing_is_left_when_all_is_done():
    assert seconds_left(WORK, {"a": 1.0, "b": 1.0, "c": 1.0}, RATES) == 0.0


def test_counts_of_finished_stages_replace_guesses():
    config = load_config(CodeConfig, None, ["evaluate.sampling.n_samples=10"])
    tasks = prepare_tasks(config)
    stages = {
        "sample_programs": record(5.0, tokens=1000, completions=100),
        "pair": record(0.1, pairs=40),
    }
    work = {item.stage: item.amount for item in plan_work(config, tasks, stages)}
    assert work["sample_before"] == pytest.approx(len(tasks.held_out) * 10 * 10)
    assert work["align"] == pytest.approx(40 * 150)
