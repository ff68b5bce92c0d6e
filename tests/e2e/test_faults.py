"""The fault harness on the smallest application; `tests/benchmarks/faults.py` breaks all three."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_path = Path(__file__).parents[1] / "benchmarks" / "faults.py"
_spec = importlib.util.spec_from_file_location("faults", _path)
faults = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faults)


def test_broken_runs_of_the_recommender_go_on_to_the_same_bytes(tmp_path):
    journey = faults.prepare("rec", tmp_path)
    whole = faults.run_undisturbed(journey, tmp_path)
    assert len(whole.outputs) > 5
    outcomes = list(faults.break_runs(journey, whole, tmp_path, n_points=3, seed=1))
    assert [outcome.differs for outcome in outcomes] == [[], [], []]
    assert any(outcome.broke for outcome in outcomes)


def test_an_output_that_changed_is_named(tmp_path):
    journey = faults.prepare("rec", tmp_path)
    faults._run(journey, tmp_path / "run")
    run = tmp_path / "run" / "run"
    outputs = faults.read_outputs(run)
    (run / "metrics.jsonl").write_text("forged")
    changed = {name for name, _ in outputs.items() ^ faults.read_outputs(run).items()}
    assert {name.partition(":")[2] for name in changed} == {"metrics.jsonl"}
